"""Keeps `gateway.db` sound: compares it with its marker at the start, looks after it while it runs, salvages."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from teg.adapters.gateway_db import salvage
from teg.adapters.gateway_db.counters import count, counters
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.look_through import LookThrough
from teg.adapters.gateway_db.marker import COUNTERS, LAST_IDS, LATER_COUNTERS, Marker
from teg.adapters.gateway_db.salvage import Salvage
from teg.domain.errors import Unavailable

logger = logging.getLogger("gateway.database")

MARK_EVERY_S = 60.0


class DatabaseKeeper:
    """`telemetry.ports.StorageKeeper`."""

    def __init__(
        self, path: Path, monotonic_s: Callable[[], float], committed: Callable[[], None] = lambda: None
    ) -> None:
        """`committed` is called after each transaction, and once a minute (`tend`) when it could be known why none."""
        self._committed = committed
        self.database = Database(path, on_fresh=salvage.carry_over)
        self.database.committed = committed
        self._salvage = Salvage(self.database)
        self._look_through = LookThrough(self.database)
        self._marker = Marker(path)
        self._monotonic_s = monotonic_s
        self._marked_s = float("-inf")
        self._schemas: tuple[Iterable[str], ...] = ()
        self._waiting: list[Callable[[], None]] = []

    def open_when_possible(self, *schemas: Iterable[str]) -> None:
        """Now, if the disk lets us; else at the first `tend` that can: a start does not wait for a disk.

        Raises:
            Refused: a newer gateway wrote the file.
        """
        self._schemas = schemas
        try:
            self.open(*schemas)
        except Unavailable as reason:
            logger.error("%s; going on without the archive until it is available", reason)

    def when_open(self, action: Callable[[], None]) -> None:
        """Run `action` before the archive is used for anything else: now, or when it is opened."""
        if self.database.opened:
            action()
        else:
            self._waiting.append(action)

    def open(self, *schemas: Iterable[str]) -> None:
        """
        Raises:
            Refused: a newer gateway wrote the file.
            Unavailable: the disk does not let us.
        """
        marked = self._marker.read()
        for table in LAST_IDS:
            if marked.get(table):
                self.database.last_ids.note(table, marked[table])
        self.database.open(*schemas, salvage.SCHEMA)
        if marked and not self._salvage.due:
            self._compare(marked)

    def stop_waiting(self) -> None:
        self.database.stop_waiting()

    def close(self) -> None:
        self.database.close()

    @property
    def unsound(self) -> bool:
        return not self.database.sound()

    @property
    def care_due(self) -> bool:
        """True when `tend` has something to do: a look of microseconds, for the timetable."""
        return not self.database.opened or self._monotonic_s() - self._marked_s >= MARK_EVERY_S or self.unsound

    @property
    def salvage_due(self) -> bool:
        return self._salvage.due

    @property
    def check_due(self) -> bool:
        return self._look_through.due

    def check(self, stopping: Callable[[], bool]) -> None:
        self._look_through.run(stopping)

    def tend(self) -> None:
        """
        Raises:
            Unavailable: the file is not sound, and could not be made so yet.
        """
        try:
            self._tend()
            with self.database.transaction(durable=False):  # nothing is written: that one could be had is the news
                pass
        except Unavailable:
            self._committed()
            raise

    def _tend(self) -> None:
        if not self.database.opened:
            self.open(*self._schemas)
            logger.warning("%s is available", self.database.path)
        while self._waiting:
            self._waiting[0]()
            del self._waiting[0]
        self.database.verify()
        self._marker.write(self._numbers())
        self._marked_s = self._monotonic_s()

    def salvage(self, stopping: Callable[[], bool]) -> list[str]:
        """Bring back what lies in quarantine; returns a line for each set that is done."""
        return [str(account) for account in self._salvage.run(stopping)]

    def _numbers(self) -> dict[str, int]:
        kept = counters(self.database)
        ids = dict(self.database.rows("SELECT name, seq FROM sqlite_sequence"))
        counted = {name: kept.get(name, 0) for name in (*COUNTERS, *LATER_COUNTERS)}
        return {name: ids.get(name, 0) for name in LAST_IDS} | counted

    def _compare(self, marked: dict[str, int]) -> None:
        """An archive that knows less than its marker has lost rows without an error: said, counted, ids skipped."""
        now = self._numbers()
        if now["record"] >= marked["record"]:
            return
        missing = marked["accepted"] - now["accepted"]
        gone = sum(marked.get(name, 0) for name in ("delivered", "held", "evicted", "lost"))
        waiting = marked["accepted"] - gone
        logger.error(
            "%s knows %d records, %d had been accepted before: a database or a write-ahead log was lost or replaced by"
            " an older one; up to %d undelivered records are missing",
            *(self.database.path, now["accepted"], marked["accepted"], min(missing, waiting)),
        )
        lost = max(0, min(missing, waiting))
        with self.database.transaction() as connection:
            self.database.last_ids.skip(connection)
            count(connection, accepted=missing, lost=lost, delivered=missing - lost)
