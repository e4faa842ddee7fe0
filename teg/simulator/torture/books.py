"""The producer and its books: what was recorded is noted, fsynced, after its insert was committed."""

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from teg.simulator.thingsboard.device import Device

START_MS = 1_767_225_600_000
_TABLES = (
    "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, type text, message text)",
    "CREATE TABLE IF NOT EXISTS health_check (id INTEGER PRIMARY KEY, timestamp_ms INTEGER)",
)


class Producer:
    """A controller that writes numbers into its inbox. What it could not insert it does not count."""

    def __init__(self, inbox: Path, ledger: Path) -> None:
        self.recorded: set[int] = set()
        self.fsync_s: list[float] = []
        self._next = 1
        self._ledger = ledger.open("wb")
        self._inbox = sqlite3.connect(inbox, isolation_level=None, timeout=5.0, check_same_thread=False)
        self._inbox.execute("PRAGMA journal_mode=WAL")
        for table in _TABLES:
            self._inbox.execute(table)

    def produce(self, rows: int) -> None:
        numbers = range(self._next, self._next + rows)
        self._next += rows
        try:
            self._insert(numbers)
        except sqlite3.OperationalError:  # locked, or the disk is full: a real controller goes on measuring
            return
        self._ledger.write(b"".join(b"%d\n" % number for number in numbers))
        self._ledger.flush()
        began_s = time.monotonic()
        os.fsync(self._ledger.fileno())
        self.fsync_s.append(time.monotonic() - began_s)
        self.recorded.update(numbers)

    def waiting(self) -> int:
        return int(self._inbox.execute("SELECT count(*) FROM messages").fetchone()[0])

    def close(self) -> None:
        self._inbox.close()
        self._ledger.close()

    def _insert(self, numbers: Iterable[int]) -> None:
        rows = [("measurement", f'{{"ts": {START_MS + n}, "values": {{"n": {n}}}}}') for n in numbers]
        self._inbox.execute("BEGIN IMMEDIATE")
        try:
            self._inbox.executemany("INSERT INTO messages (type, message) VALUES (?, ?)", rows)
            self._inbox.execute("COMMIT")
        except sqlite3.OperationalError:
            if self._inbox.in_transaction:
                self._inbox.execute("ROLLBACK")
            raise


@dataclass(frozen=True, slots=True)
class Account:
    """`accepted` and the ways it went are the gateway's own counters; the rest is counted by us."""

    recorded: int
    on_server: int
    lost: int  #: recorded, and neither on the server nor on the way
    doubled: int  #: records that the archive has more than once
    inbox: int
    accepted: int
    delivered: int
    pending: int
    held: int
    set_aside: int
    evicted: int
    counted_lost: int
    again: int  #: values that the server got more than once (it stores them once)

    @property
    def exact(self) -> bool:
        return self.accepted == self.delivered + self.pending + self.held + self.evicted + self.counted_lost

    @property
    def settled(self) -> bool:
        return not (self.pending or self.inbox)

    @property
    def sound(self) -> bool:
        return self.settled and self.exact and not (self.lost or self.doubled or self.counted_lost or self.evicted)


def take_account(producer: Producer, device: Device, gateway_db: Path) -> Account:
    """Of a gateway that may be running.

    Raises:
        sqlite3.Error: the database cannot be read now.
    """
    stored = {value for (key, _), value in device.telemetry().items() if key == "n" and isinstance(value, int)}
    with closing(sqlite3.connect(f"{gateway_db.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        counters = Counter(dict(connection.execute("SELECT name, value FROM counter")))
        archived = Counter(n - START_MS for (n,) in connection.execute("SELECT ts FROM record WHERE kind = 0"))
        (pending,) = connection.execute("SELECT count(*) FROM outbox WHERE lane = 1").fetchone()
    waiting = producer.waiting()
    return Account(
        recorded=len(producer.recorded),
        on_server=len(producer.recorded & stored),
        lost=len(producer.recorded - stored) if not waiting and not pending else 0,
        doubled=sum(count > 1 for count in archived.values()),
        inbox=waiting,
        accepted=counters["accepted"],
        delivered=counters["delivered"],
        pending=pending,
        held=counters["held"],
        set_aside=counters["set_aside"],
        evicted=counters["evicted"],
        counted_lost=counters["lost"],
        again=device.duplicates,
    )
