"""What a running gateway and its inbox reader cost, counted by the kernel: CPU, memory, wake-ups, bytes, fsyncs.

python -m bench.cost [--seconds 60]     (fsyncs need strace)

Counts, unlike times, say the same on every machine; `tests/system/test_cost.py` holds some of them.
"""

import argparse
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from bench.server import TOKEN, Server, stand_in
from tests.support.running import ControllerInbox, RunningGateway, message

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals so far. `written_bytes` is what the kernel will write to the block layer, in whole pages."""

    cpu_s: float = 0.0
    rss_bytes: int = 0
    wakeups: int = 0
    written_bytes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def since(self, before: "Usage") -> "Usage":
        """`rss_bytes` is what it is now."""
        gone = (self.cpu_s - before.cpu_s, self.rss_bytes)
        return Usage(*gone, self.wakeups - before.wakeups, self.written_bytes - before.written_bytes)


def usage(pid: int) -> Usage:
    """Of one process; its children are others."""
    proc = Path("/proc") / str(pid)
    stat = (proc / "stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    io = dict(line.split(": ") for line in (proc / "io").read_text().splitlines())
    wakeups = sum(
        int(line.split(":")[1])
        for thread in (proc / "task").iterdir()
        for line in (thread / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )
    rss_bytes = int(status["VmRSS"].split()[0]) * 1024
    return Usage((int(stat[11]) + int(stat[12])) / TICKS_PER_S, rss_bytes, wakeups, int(io["write_bytes"]))


def processes(pid: int) -> list[int]:
    """The gateway and its inbox reader."""
    children = (Path("/proc") / str(pid) / "task").glob("*/children")
    return [pid, *(int(child) for file in children for child in file.read_text().split())]


def total(pid: int) -> Usage:
    return sum((usage(process) for process in processes(pid)), Usage())


@dataclass(slots=True)
class Calls:
    """What strace saw: these counts are the same on a loaded machine, and in every run."""

    fsyncs: int = 0
    timeouts: int = 0  #: waits that ended because their time was up: wake-ups without a reason from outside
    written: list[str] = field(default_factory=list)  #: the files of `directory` that were written, once a call


_TRACED = "fsync,fdatasync,write,pwrite64,futex,poll,ppoll,select,pselect6,epoll_wait,epoll_pwait,clock_nanosleep"
_TIMED_OUT = re.compile(r"ETIMEDOUT|= 0 \(Timeout\)|nanosleep.*= 0\b")


@contextmanager
def traced(pid: int, trace: Path, directory: Path) -> Iterator[Calls]:
    """The calls of the gateway and its reader in the block; complete when it has ended."""
    followed = [word for process in processes(pid) for word in ("-p", str(process))]
    command = ["strace", "-f", "-y", "-e", f"trace={_TRACED}", "-o", str(trace), *followed]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    tracer.stderr.readline()  # attached
    found = Calls()
    try:
        yield found
    finally:
        tracer.terminate()
        tracer.wait()
        tracer.stderr.close()
    text = trace.read_text()
    found.fsyncs = len(re.findall(r"\bf(?:data)?sync\(", text))
    found.timeouts = sum(1 for line in text.splitlines() if _TIMED_OUT.search(line))
    found.written = re.findall(rf"\bp?write(?:64)?\(\d+<({re.escape(str(directory))}[^>]*)>", text)


def settle(pid: int, quiet_s: float = 3.0, longest_s: float = 30.0) -> None:
    """Until nothing was written for a while: the start's last writes, and what follows a measurement, are over."""
    deadline_s, before, since_s = time.monotonic() + longest_s, -1, time.monotonic()
    while time.monotonic() - since_s < quiet_s:
        assert time.monotonic() < deadline_s, f"it still writes after {longest_s} s"
        if (now := total(pid).written_bytes) != before:
            before, since_s = now, time.monotonic()
        time.sleep(0.1)


def feed(inbox: ControllerInbox, first: int, count: int, per_s: float) -> None:
    """`count` messages at a steady rate."""
    began_s = time.monotonic()
    for number in range(count):
        inbox.insert(message(first + number))
        time.sleep(max(0.0, began_s + (number + 1) / per_s - time.monotonic()))


@dataclass(frozen=True, slots=True)
class Cost:
    """Of `messages` at a steady rate, or of none, in `seconds`; `calls` of a second stretch like the first."""

    seconds: float
    messages: int
    used: Usage
    calls: Calls

    @property
    def cpu_percent(self) -> float:
        return 100 * self.used.cpu_s / self.seconds

    @property
    def kb_per_message(self) -> float:
        return self.used.written_bytes / self.messages / 1000

    @property
    def fsyncs_per_message(self) -> float:
        return self.calls.fsyncs / self.messages

    def __str__(self) -> str:
        words = [
            f"CPU {self.cpu_percent:.2f} % of a core",
            f"wake-ups {self.used.wakeups / self.seconds:.1f}/s ({self.calls.timeouts / self.seconds:.1f} by time)",
            f"RSS {self.used.rss_bytes / 1e6:.1f} MB",
            f"written {self.used.written_bytes / 1000:.1f} kB",
        ]
        if self.messages:
            words.append(f"a message {self.kb_per_message:.1f} kB, {self.fsyncs_per_message:.2f} fsyncs")
        return "   ".join(words)


@contextmanager
def idle_gateway(directory: Path, server: Server) -> Iterator[tuple[RunningGateway, ControllerInbox, float]]:
    """Connected and settled, after one message; and how many seconds it took to be connected."""
    tls = {"TB_TLS": "on", "THINGSBOARD_CA_CERT": str(server.tls.ca_file)}
    gateway = RunningGateway(directory, server.host, server.port, TOKEN, **tls)
    inbox = ControllerInbox(gateway.inbox_path)
    started_s = time.monotonic()
    with gateway:
        gateway.wait_log("connected to")
        connected_s = time.monotonic() - started_s
        server.reset()
        inbox.insert(message(0))
        server.wait(1, 20)
        settle(pid_of(gateway))
        yield gateway, inbox, connected_s
        assert gateway.stop() == 0
    inbox.close()


def pid_of(gateway: RunningGateway) -> int:
    assert gateway.process is not None
    return gateway.process.pid


def at_rest(gateway: RunningGateway, seconds: float) -> Cost:
    before = total(pid_of(gateway))
    time.sleep(seconds)
    used = total(pid_of(gateway)).since(before)
    with traced(pid_of(gateway), gateway.directory / "trace", gateway.data_path) as calls:
        time.sleep(seconds)
    return Cost(seconds, 0, used, calls)


def with_messages(gateway: RunningGateway, inbox: ControllerInbox, first: int, per_s: int, seconds: int) -> Cost:
    """Of a stream that flows already."""
    feed(inbox, first, 5 * per_s, per_s)  # the rate is known, and the drainers are there
    count, first = seconds * per_s, first + 5 * per_s
    before = total(pid_of(gateway))
    feed(inbox, first, count, per_s)
    used = total(pid_of(gateway)).since(before)
    with traced(pid_of(gateway), gateway.directory / "trace", gateway.data_path) as calls:
        feed(inbox, first + count, count, per_s)
    return Cost(seconds, count, used, calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    with (
        tempfile.TemporaryDirectory() as name,
        stand_in(Path(name)) as server,
        idle_gateway(Path(name) / "g", server) as (gateway, inbox, connected_s),
    ):
        print(f"start → connected {connected_s:.2f} s")
        print(f"at rest       {at_rest(gateway, seconds)}", flush=True)
        for first, per_s in ((1, 1), (100_000, 10)):
            print(f"{per_s:2} a second   {with_messages(gateway, inbox, first, per_s, seconds)}", flush=True)


if __name__ == "__main__":
    main()
