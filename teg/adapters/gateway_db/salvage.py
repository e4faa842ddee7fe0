"""Brings back what can be read of a file set in quarantine: undelivered rows first, each once, with an exact account.

SQLite's own reads come first and are believed; where they break, the raw pages are searched for what is missing
(`pages.py`), and a row from there is taken only when its text says what its columns say. Rows get new ids, so that no
acknowledgement that is still on the way can mean them and the publisher, who reads upwards, meets them. What cannot be
known to be delivered is sent again: the server stores the same key and time once.
"""

import logging
import sqlite3
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from teg.adapters.gateway_db import quarantine
from teg.adapters.gateway_db.connections import connect, sqlite_errors
from teg.adapters.gateway_db.counters import count
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.names import sync_directory
from teg.adapters.gateway_db.outbox import KEPT, TRANSIENT, insert_records
from teg.adapters.gateway_db.pages import Image
from teg.adapters.gateway_db.reading_damaged import DamagedTable, Gaps, as_letter, as_record
from teg.domain.telemetry.ports import Stream

logger = logging.getLogger("gateway.salvage")

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS salvaged_row (folder TEXT NOT NULL, kind TEXT NOT NULL, old_id INTEGER NOT NULL,"
    " PRIMARY KEY (folder, kind, old_id)) WITHOUT ROWID",
)
SLICE = 250
#: The kind of row that says of a folder: all of it was brought back.
_ALL = "all"
#: Brought over at once, before the first use of a fresh file: at-most-once calls and wanted states depend on them.
_ROW_TABLES = {
    "record",
    "outbox",
    "dead_letter",
    "counter",
    "inbox_batch",
    "salvaged_row",
    "sqlite_sequence",
    "unproven",
    "proven",
    "proof",
}
#: Ids of the old file mean nothing in the new one, and its watermarks are another archive's.
_ROW_TABLES |= {"unproven", "proven", "proof", "clock_anchor", "moved", "sent_before"}
_ROW_TABLES |= {"chosen_keys", "report_key", "report_position"}

#: Text as bytes: what is damaged must not stop us.
_RECORD_COLUMNS = "source_row, ts, points, CAST(message AS BLOB), CAST(payload AS BLOB), kind"


@dataclass
class Account:
    """What a salvage found. `lost` were undelivered and are nowhere; it is exact when the counters could be read."""

    pending: int = 0
    delivered: int = 0
    again: int = 0  #: undelivered, and meanwhile accepted anew from the inbox
    letters: int = 0
    unproven: int = 0  #: of the pending ones: acknowledged by the server, and not proven stored
    lost: int = 0
    unknown: bool = False  #: parts of the outbox could not be read: rows may be sent that were delivered

    def __str__(self) -> str:
        text = (
            f"{self.pending} undelivered records, {self.delivered} delivered ones and {self.letters} dead letters"
            f" were brought back, {self.lost} undelivered ones are lost"
        )
        return text + "; some that the server has may be sent again" * self.unknown


@dataclass
class _Waiting:
    """The ids of the old outbox."""

    lanes: dict[Stream, "array[int]"] = field(default_factory=dict)
    unknown: Gaps = field(default_factory=Gaps)
    unproven: int = 0

    def lane_of(self, row_id: int, row: Sequence[Any]) -> Stream | None:
        for lane in (Stream.DATA, Stream.OWN, Stream.REPUBLISH):
            ids = self.lanes.get(lane, ())
            place = bisect_left(ids, row_id)
            if place < len(ids) and ids[place] == row_id:
                return lane
        if row_id in self.unknown:
            return Stream.OWN if row[0] is None and row[5] == TRANSIENT else Stream.DATA
        return None

    def known(self, row_id: int) -> bool:
        """It was not delivered, for certain."""
        ids = self.lanes.get(Stream.DATA, ())
        place = bisect_left(ids, row_id)
        return place < len(ids) and ids[place] == row_id

    def first(self) -> int:
        known = [ids[0] for ids in self.lanes.values() if len(ids)]
        return min(known + [first for first, _ in self.unknown.spans], default=0)


class Salvage:
    """`run` goes on where it was interrupted; harmless when there is nothing to bring back."""

    def __init__(self, database: Database, report: Callable[[str], None] = lambda _: None) -> None:
        self._database = database
        self._report = report
        self._running = threading.Lock()

    @property
    def due(self) -> bool:
        return bool(quarantine.folders_to_salvage(self._database.path))

    def run(self, stopping: Callable[[], bool] = lambda: False) -> list[Account]:
        """Does nothing while another thread is at it: what that brings back would be missing here, and counted as lost.

        Raises:
            Unavailable: the disk does not let us now; nothing is brought back twice at the next try.
        """
        if not self._running.acquire(blocking=False):
            return []
        try:
            return self._run(stopping)
        finally:
            self._running.release()

    def _run(self, stopping: Callable[[], bool]) -> list[Account]:
        accounts: list[Account] = []
        for folder in quarantine.folders_to_salvage(self._database.path):
            if not self._closed(folder):
                account = _FolderSalvage(self._database, folder, stopping).run()
                if account is None:
                    break
                logger.warning("salvage of %s: %s", folder, account)
                self._report(str(account))
                accounts.append(account)
            self._finish(folder)
        return accounts

    def _closed(self, folder: Path) -> bool:
        """Everything of it is here, and a stop came before its note said so."""
        sql = "SELECT 1 FROM salvaged_row WHERE folder = ? AND kind = ?"
        return bool(self._database.rows(sql, (folder.name, _ALL)))

    def _finish(self, folder: Path) -> None:
        """The note first, and durably: without it what is remembered here would be all that speaks against a repeat."""
        with sqlite_errors(folder):
            quarantine.salvaged(folder)
            sync_directory(folder)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM salvaged_row WHERE folder = ?", (folder.name,))


class _FolderSalvage:
    def __init__(self, database: Database, folder: Path, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._folder = folder
        self._stopping = stopping
        self._account = Account()

    def run(self) -> Account | None:
        """None when it was told to stop before the end."""
        with sqlite_errors(self._folder), _old_set(self._folder, self._database.path.name) as (old, image):
            waiting = self._waiting = _waiting(old)
            self._account.unknown = bool(waiting.unknown)
            self._account.unproven = waiting.unproven
            found = _Found(old, image, waiting)
            for rows in _slices(found.pending()):
                self._bring_back(rows)
                if self._stopping():
                    return None
            for rows in _slices(found.history()):
                self._bring_back(rows)
                if self._stopping():
                    return None
            self._letters(old, image)
            self._close_account(old)
        return self._account

    def _bring_back(self, rows: list[tuple[int, tuple[Any, ...], Stream | None]]) -> None:
        with self._database.transaction() as connection:
            new = [row for row in rows if self._first_time(connection, "record", row[0])]
            count(connection, **{_note("known"): sum(self._waiting.known(old_id) for old_id, *_ in new)})
            for lane in (Stream.DATA, Stream.OWN, Stream.REPUBLISH, None):
                self._insert(connection, lane, [values for _, values, at in new if at is lane])

    def _insert(self, connection: sqlite3.Connection, lane: Stream | None, rows: list[tuple[Any, ...]]) -> None:
        if lane is Stream.DATA:
            fresh = [row for row in rows if not _accepted_anew(connection, row)]
            insert_records(connection, fresh, lane)
            count(
                connection,
                accepted=len(fresh),
                **{_note("pending"): len(fresh), _note("again"): len(rows) - len(fresh)},
            )
        elif lane is Stream.OWN:
            insert_records(connection, rows, lane)
        else:
            kept = [row for row in rows if row[5] == KEPT]  # a delivered log is not kept
            insert_records(connection, kept, lane)
            count(connection, accepted=len(kept), delivered=len(kept), **{_note("delivered"): len(kept)})

    def _first_time(self, connection: sqlite3.Connection, kind: str, old_id: int) -> bool:
        sql = "INSERT OR IGNORE INTO salvaged_row (folder, kind, old_id) VALUES (?, ?, ?)"
        return connection.execute(sql, (self._folder.name, kind, old_id)).rowcount == 1

    def _letters(self, old: sqlite3.Connection, image: Image) -> None:
        columns = "source_row, coalesce(type, ''), CAST(message AS BLOB), CAST(reason AS BLOB), set_aside_ms"
        table = DamagedTable(old, columns, "dead_letter", "id")
        for rows in _slices(_with_scan(table, image, as_letter)):
            with self._database.transaction() as connection:
                new = [row[1:] for row in rows if self._first_time(connection, "letter", row[0])]
                connection.executemany(
                    "INSERT INTO dead_letter (source_row, type, message, reason, set_aside_ms)"
                    " VALUES (?, ?, ?, CAST(? AS TEXT), ?)",
                    new,
                )
                count(connection, **{_note("letters"): len(new)})

    def _close_account(self, old: sqlite3.Connection) -> None:
        """The old counters join the new: accepted = delivered + pending + held + evicted + lost, before and after."""
        with self._database.transaction() as connection:
            names = ("pending", "again", "delivered", "letters")
            notes = dict(connection.execute("SELECT name, value FROM counter WHERE name LIKE 'salvage/%'"))
            for name in names:
                setattr(self._account, name, notes.get(_note(name), 0))
            books = _readable(old, "SELECT name, value FROM counter")
            if books:
                self._join(connection, dict(books), notes.get(_note("known"), 0))
            else:
                count(connection, set_aside=self._account.letters)
            connection.execute("DELETE FROM counter WHERE name LIKE 'salvage/%'")
            self._first_time(connection, _ALL, 0)

    def _join(self, connection: sqlite3.Connection, books: dict[str, int], known: int) -> None:
        account = self._account
        gone = sum(books.get(name, 0) for name in ("evicted", "held", "lost"))
        waited = books.get("accepted", 0) - books.get("delivered", 0) - gone + account.unproven
        account.lost = max(0, waited - (known if known else account.pending + account.again))
        delivered = books.get("accepted", 0) - gone - account.pending - account.again - account.lost
        others = {name: value for name, value in books.items() if name not in ("accepted", "delivered", "lost")}
        count(
            connection,
            accepted=books.get("accepted", 0) - account.pending - account.again - account.delivered,
            delivered=delivered - account.delivered,
            lost=account.lost + books.get("lost", 0),
            **{name: value for name, value in others.items() if not name.startswith("salvage/")},
        )


class _Found:
    """Rows of the old file with the lane they were waiting in."""

    def __init__(self, old: sqlite3.Connection, image: Image, waiting: _Waiting) -> None:
        self._old, self._image, self._waiting = old, image, waiting

    def pending(self) -> Iterator[tuple[int, tuple[Any, ...], Stream | None]]:
        if any(len(ids) for ids in self._waiting.lanes.values()) or self._waiting.unknown:
            for row_id, *values in self._rows(self._waiting.first()):
                lane = self._waiting.lane_of(row_id, values)
                if lane in (Stream.DATA, Stream.OWN):
                    yield row_id, tuple(values), lane

    def history(self) -> Iterator[tuple[int, tuple[Any, ...], Stream | None]]:
        for row_id, *values in self._rows(0):
            lane = self._waiting.lane_of(row_id, values)
            if lane not in (Stream.DATA, Stream.OWN):
                yield row_id, tuple(values), lane

    def _rows(self, first: int) -> Iterator[tuple[Any, ...]]:
        table = DamagedTable(self._old, _RECORD_COLUMNS, "record", "id")
        return (row for row in _with_scan(table, self._image, as_record, first) if row[0] >= first)


def _with_scan(
    table: DamagedTable, image: Image, judge: Callable[[Sequence[Any]], tuple[Any, ...] | None], first: int = 0
) -> Iterator[tuple[Any, ...]]:
    """What SQLite reads, then what the raw pages hold of the ids that it could not."""
    for row_id, *values in table.rows(first):
        if (good := judge(values)) is not None:
            yield row_id, *good
    if not table.gaps:
        return
    seen: set[int] = set()
    for row_id, values in image.rows():
        if row_id in table.gaps and row_id not in seen and (good := judge(values[1:])) is not None:
            seen.add(row_id)
            yield row_id, *good


def _waiting(old: sqlite3.Connection) -> _Waiting:
    waiting = _Waiting()
    for lane in Stream:
        table = DamagedTable(old, "lane", "outbox", "record_id", f"lane = {lane:d}")
        waiting.lanes[lane] = array("q", sorted(row[0] for row in table.rows()))
        waiting.unknown.spans += table.gaps.spans
    _add_unproven(old, waiting)
    return waiting


def _add_unproven(old: sqlite3.Connection, waiting: _Waiting) -> None:
    """What the server has acknowledged and may have forgotten waits, too."""
    for lane, first, last in _readable(old, "SELECT lane, first_id, last_id FROM unproven"):
        waiting.lanes[Stream(lane)] = array("q", sorted({*waiting.lanes[Stream(lane)], *range(first, last + 1)}))
        waiting.unproven += (last - first + 1) * (lane == Stream.DATA)


def _accepted_anew(connection: sqlite3.Connection, row: tuple[Any, ...]) -> bool:
    """A row of the inbox that was archived in the old file and, because it was still in the inbox, in the new one."""
    source_row, ts, _, message, _, _ = row
    if source_row is None:
        return False
    sql = "SELECT 1 FROM record WHERE ts = ? AND source_row = ? AND message = ? LIMIT 1"
    return connection.execute(sql, (ts, source_row, message)).fetchone() is not None


def _note(name: str) -> str:
    return f"salvage/{name}"


def _slices(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while taken := list(islice(rows, SLICE)):
        yield taken


def _readable(connection: sqlite3.Connection, sql: str) -> list[Any]:
    with suppress(sqlite3.Error):
        return connection.execute(sql).fetchall()
    return []


@contextmanager
def _old_set(folder: Path, name: str) -> Iterator[tuple[sqlite3.Connection, Image]]:
    """The old file, open; its log stays as it was found, under its name, after SQLite has closed it."""
    log, kept = folder / f"{name}-wal", folder / f"{name}-wal.found"
    if log.exists() and not kept.exists():
        kept.hardlink_to(log)
    main = folder / name
    main.touch(mode=0o600)
    image = Image(main, kept)
    old = connect(main)
    try:
        for pragma in ("trusted_schema=OFF", "wal_autocheckpoint=0", "cell_size_check=ON"):
            old.execute(f"PRAGMA {pragma}")
        yield old, image
    finally:
        image.close()
        old.close()
        if kept.exists() and not log.exists():
            kept.rename(log)


def carry_over(database: Database, folder: Path | None) -> None:
    """`Database`'s `on_fresh`: small tables (states, calls, attributes) as far as they can be read, at once."""
    if folder is None:
        return
    try:
        with _old_set(folder, database.path.name) as (old, _), database.transaction() as connection:
            for table, columns in _small_tables(database):
                _copy(old, connection, table, columns)
    except (sqlite3.Error, OSError) as error:
        logger.warning("states and calls of %s could not be read: %s", folder, error)


def _small_tables(database: Database) -> list[tuple[str, list[str]]]:
    found = database.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = [name for (name,) in found if name not in _ROW_TABLES]
    return [(table, [row[1] for row in database.rows(f"PRAGMA table_info({table})")]) for table in tables]


def _copy(old: sqlite3.Connection, connection: sqlite3.Connection, table: str, columns: list[str]) -> None:
    """From both ends up to what is damaged."""
    names = ", ".join(columns)
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"
    for order in ("ASC", "DESC"):
        with suppress(sqlite3.Error):
            for row in old.execute(f"SELECT {names} FROM {table} ORDER BY {columns[0]} {order}"):
                connection.execute(insert, row)
            return
