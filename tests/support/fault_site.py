"""A real gateway between a producer that keeps its own books and a server that keeps its own: who lost what?

The producer notes each number in a file of its own, fsynced, after its insert was committed; the stand-in notes what it
stored; the archive says what it has. At the end the three must agree: recorded = stored on the server = archived once,
and accepted = delivered + pending + evicted + lost.
"""

import os
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import message, wait_until
from tests.support.site import Site

START_MS = 1_767_225_600_000


class FaultSite(Site):
    """`Site` with a producer's ledger; what the producer could not insert it does not count."""

    def __init__(self, path: Path, server: ThingsBoard, **environment: str) -> None:
        super().__init__(path, server, **environment)
        self.ledger = (path / "ledger").open("a+b")
        self.database = self.gateway.data_path / "gateway.db"
        self._next = 1

    def produce(self, rows: int) -> None:
        """In one transaction; noted only when it is committed."""
        numbers = range(self._next, self._next + rows)
        self._next += rows
        self.inbox.insert_many(message(number, START_MS) for number in numbers)
        self.ledger.write(b"".join(b"%d\n" % number for number in numbers))
        self.ledger.flush()
        os.fsync(self.ledger.fileno())

    def produced(self) -> set[int]:
        self.ledger.seek(0)
        return {int(line) for line in self.ledger.read().splitlines()}

    def on_server(self) -> set[int]:
        return {value for (key, _), value in self.device.telemetry().items() if key == "n" and isinstance(value, int)}

    def archived(self) -> list[int]:
        return [
            int(str(ts)) - START_MS for (ts,) in self.gateway.rows("SELECT ts FROM record WHERE source_row NOT NULL")
        ]

    def wait_settled(self, timeout_s: float = 120.0, missing: int = 0) -> None:
        """Everything is on the server, the inbox is empty and nothing waits any more."""
        expected = self.produced()
        self.device.wait_for(
            lambda _: len(expected - self.on_server()) <= missing, timeout_s, f"{len(expected)} records on the server"
        )
        wait_until(lambda: self.inbox.count() == 0, 60, "the inbox is empty")
        wait_until(lambda: self.pending() == 0, 60, "everything is marked")

    def wait_up(self) -> None:
        """Of the process that was started last: before Python runs, SIGTERM still means what the kernel says."""
        assert self.gateway.process is not None
        lock = self.gateway.data_path / "gateway.lock"
        started = Path(f"/proc/{self.gateway.process.pid}/fd")
        wait_until(lambda: any(_leads_to(entry, lock) for entry in started.iterdir()), 60, "the gateway is up")

    def assert_account(self) -> None:
        counters = self.counters()
        ways = sum(counters.get(name, 0) for name in ("delivered", "held", "evicted", "lost")) + self.pending()
        assert counters.get("accepted", 0) == ways, counters

    def assert_exact(self) -> None:
        """Nothing lost, nothing archived twice, the account exact.

        What the server is proven to have may leave the archive where a disk is full: counted, and nothing else.
        """
        expected = self.produced()
        assert expected - self.on_server() == set(), "lost on the way"
        archived = Counter(self.archived())
        doubled = sorted(number for number, times in archived.items() if times > 1)
        missing, unknown = sorted(expected - archived.keys()), sorted(archived.keys() - expected)
        assert (doubled, unknown) == ([], []), "the archive has each once"
        self.assert_account()
        counters = self.counters()
        assert len(missing) == counters.get("expired", 0), missing
        assert (counters.get("lost", 0), counters.get("evicted", 0)) == (0, 0)

    def close(self) -> None:
        self.gateway.kill()
        self.ledger.close()
        self.inbox.close()


def _leads_to(entry: Path, path: Path) -> bool:
    with suppress(OSError):
        return entry.readlink() == path
    return False


def write_locked(path: Path) -> closing[sqlite3.Connection]:
    """Another program holds the write lock of a database, until this is closed."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return closing(connection)


def settle(seconds: float) -> None:
    """Faults last for some time; nothing is asserted about how long."""
    time.sleep(seconds)
