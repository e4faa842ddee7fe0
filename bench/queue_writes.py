"""Bytes that the queue writes to flash: per trigger by page size, per message with and without idle drainers.

python -m bench.queue_writes [--seconds 30]     (needs strace)
"""

import argparse
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.server import TOKEN, stand_in
from tasks.storage import QueueFile
from tests.support.running import CONSUMER, PROJECT, ControllerInbox, RunningGateway, message

PAIRS = 2000
#: As long as a queued `publish_records` is.
TRIGGER = b"x" * 330
WRITE = re.compile(r"(?:pwrite64|write)\(\d+<([^>]*)>.* = (\d+)$")


def written_bytes() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


class PagesOf4096(QueueFile):
    def _set_journal_mode(self, conn: Any) -> None:
        conn.execute("pragma page_size=4096")
        conn.execute("pragma journal_mode=wal")


def trigger_cost(kind: type[QueueFile], directory: Path) -> float:
    """Bytes handed to the file system for one enqueue and its dequeue, checkpoints included."""
    directory.mkdir()
    storage = kind("teg-work", filename=str(directory / "huey.db"), cache_mb=1)
    for _ in range(100):
        storage.enqueue(TRIGGER)
        storage.dequeue()
    before = written_bytes()
    for _ in range(PAIRS):
        storage.enqueue(TRIGGER)
        storage.dequeue()
    after = written_bytes()
    storage.close()
    return (after - before) / PAIRS


def writes_by_file(trace: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in trace.read_text(errors="replace").splitlines():
        if match := WRITE.search(line):
            found[Path(match[1]).name] += int(match[2])
    return found


def message_cost(directory: Path, target: str, seconds: int) -> tuple[float, float]:
    """(bytes into huey.db, bytes into gateway.db) a message at one message a second."""
    trace = directory / "trace"
    with stand_in(directory) as server:
        gateway = RunningGateway(
            directory, "localhost", server.port, TOKEN, TB_TLS="on", THINGSBOARD_CA_CERT=str(server.tls.ca_file)
        )
        inbox = ControllerInbox(gateway.inbox_path)
        command = [
            "strace",
            "-D",  # the consumer is our own child, so that it gets our signals
            "-f",
            "-y",
            "-s",
            "0",
            "-e",
            "trace=write,pwrite64",
            "-o",
            str(trace),
            str(CONSUMER),
            target,
        ]
        with gateway.log_path.open("ab") as log:
            process = subprocess.Popen(command, cwd=PROJECT, env=gateway.environment, stdout=log, stderr=log)
        inbox.insert(message(0))
        server.wait(1, 60)
        time.sleep(8)
        before = writes_by_file(trace)
        for number in range(1, seconds + 1):
            inbox.insert(message(number))
            time.sleep(1)
        after = writes_by_file(trace)
        process.send_signal(signal.SIGTERM)
        process.wait(40)
        inbox.close()
    spent = after - before
    return tuple(sum(spent[name + end] for end in ("", "-wal")) / seconds for name in ("huey.db", "gateway.db"))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        small = trigger_cost(QueueFile, directory / "512")
        large = trigger_cost(PagesOf4096, directory / "4096")
        print(
            f"a trigger (enqueue + dequeue): {small:.0f} bytes with 512-byte pages, {large:.0f} with 4 KiB", end="   "
        )
        print(f"ratio {large / small:.1f}")
        (directory / "a").mkdir()
        (directory / "b").mkdir()
        queue, archive = message_cost(directory / "a", "gateway.huey", arguments.seconds)
        print(f"a message a second, drainers wait:   {queue:.0f} bytes into huey.db, {archive:.0f} into gateway.db")
        alone, archive = message_cost(directory / "b", "bench.no_linger.huey", arguments.seconds)
        print(f"a message a second, drainers leave:  {alone:.0f} bytes into huey.db, {archive:.0f} into gateway.db")


if __name__ == "__main__":
    main()
