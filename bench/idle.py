"""What the gateway costs when nothing happens: CPU, memory, wake-ups, bytes written; and with one message a second.

python -m bench.idle [--seconds 60]
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.server import TOKEN, stand_in
from tests.support.running import ControllerInbox, RunningGateway, message

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals of a process so far."""

    cpu_s: float
    rss_bytes: int
    switches: int
    written_bytes: int


def usage(pid: int) -> Usage:
    proc = Path("/proc") / str(pid)
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    io = dict(line.split(": ") for line in (proc / "io").read_text().splitlines())
    switches = sum(
        int(line.split(":")[1])
        for thread in (proc / "task").iterdir()
        for line in (thread / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )
    return Usage(
        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,
        rss_bytes=int(status["VmRSS"].split()[0]) * 1024,
        switches=switches,
        written_bytes=int(io["write_bytes"]),
    )


def report(name: str, before: Usage, after: Usage, seconds: float, messages: int = 0) -> None:
    cpu = 100 * (after.cpu_s - before.cpu_s) / seconds
    print(f"{name}: CPU {cpu:.2f} % of a core   RSS {after.rss_bytes / 1e6:.1f} MB", end="   ")
    print(f"wake-ups {(after.switches - before.switches) / seconds:.1f}/s", end="   ")
    written = after.written_bytes - before.written_bytes
    print(
        f"written {written / seconds / 1000:.2f} kB/s"
        + (f", {written / messages / 1000:.1f} kB/message" if messages else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name, stand_in(Path(name)) as server:
        gateway = RunningGateway(
            Path(name) / "g", server.host, server.port, TOKEN, TB_TLS="on", THINGSBOARD_CA_CERT=str(server.tls.ca_file)
        )
        inbox = ControllerInbox(gateway.inbox_path)
        with gateway:
            inbox.insert(message(0))
            server.wait(1, 20)
            time.sleep(12)  # past the start-up work and the idle time-out of the drainers
            assert gateway.process is not None
            pid = gateway.process.pid
            before = usage(pid)
            time.sleep(seconds)
            report("idle       ", before, usage(pid), seconds)
            before = usage(pid)
            for number in range(seconds):
                inbox.insert(message(number + 1))
                time.sleep(1)
            report("1 message/s", before, usage(pid), seconds, seconds)
            assert gateway.stop() == 0


if __name__ == "__main__":
    main()
