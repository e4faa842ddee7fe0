"""The one file that a reader process serves: batches out of it, rows deleted from it, each request a transaction."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from teg.adapters.inbox import hostile_file, wire
from teg.adapters.inbox.hostile_file import Guard, Identity, Unsafe
from teg.domain.telemetry.validation import Oversized

#: table → the columns that are read; `messages` and `pending_mqtt_messages` have the same shape.
TABLES: dict[str, tuple[str, ...]] = {
    "messages": ("type", "message"),
    "pending_mqtt_messages": ("type", "message"),
    "controller_archive": ("timestamp_ms", "message"),
    "log_buffer": ("log_level", "message", "timestamp_ms"),
    "health_check": ("timestamp_ms",),
}
#: Controllers checkpoint their own log; for those that do not, we do it from here on.
LOG_LIMIT_BYTES = 4 << 20
#: A log file never shrinks, so its size does not tell how much is in it: after this many deletes we look again.
LOG_LIMIT_DELETES = 250


#: Marks of rows that were read and not deleted yet: about two megabytes.
MAX_KNOWN = 10_000


class Absent(Exception):  # noqa: N818 - an answer
    """There is no file."""


class Replaced(Exception):  # noqa: N818 - an answer
    """Another file lies in its place, or other rows lie under the ids."""


class QueueFile:
    """Opened at the first request that finds it, and never another one after that."""

    def __init__(self, name: str, names: int = 1, refusal: str = "") -> None:
        """`refusal`: why nothing is to be opened here."""
        self._name = name
        self._names = names
        self._refusal = refusal
        self._identity: Identity | None = None
        self._connection: sqlite3.Connection | None = None
        self._guard: Guard | None = None
        self._row_ids: dict[str, str | None] = {}
        self._known = KnownMarks()
        self._schema: Any = None
        self._log_bytes = 0
        self._deletes = 0

    def has_rows_between(self, table: str, first_id: int, end_id: int) -> bool:
        with self._reading(table) as (connection, row_id):
            sql = f"SELECT 1 FROM {table} WHERE {row_id} >= ? AND {row_id} < ? LIMIT 1"
            return bool(row_id and connection.execute(sql, (first_id, end_id)).fetchone())

    def last_heartbeat_ms(self) -> int | None:
        with self._reading("health_check") as (connection, row_id):
            if not row_id:
                return None
            found = connection.execute("SELECT max(timestamp_ms) FROM health_check").fetchone()[0]
        return found if isinstance(found, int) else None

    def rows(self, table: str, first_id: int, max_rows: int) -> Iterator[tuple[Any, ...]]:
        """(id, columns…) by id from `first_id` on; TEXT comes as bytearray, BLOB as bytes."""
        with self._reading(table) as (connection, row_id):
            if row_id:
                self._known.begin(table, _others_writes(connection))
                yield from Rows(connection, table, row_id).read(first_id, wire.MAX_ID, max_rows)

    def remember(self, ids: Sequence[int], marks: Sequence[bytes]) -> None:
        """What `rows` gave just now; so it needs not be read again when it is deleted."""
        self._known.add(ids, marks)

    def delete(self, table: str, ids: Sequence[int], marks: Sequence[bytes], mark_of: Callable[[Any], bytes]) -> float:
        """Exactly these rows, and only if they still hold what was read. Returns the seconds of write lock.

        Raises:
            Replaced: nothing was deleted.
        """
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        started_s = time.monotonic()
        try:
            self._check_identity()
            if (row_id := self._row_id(connection, table)) is not None:
                rows = Rows(connection, table, row_id)
                if not self._known.still_hold(table, _others_writes(connection), ids, marks):
                    rows.compare(ids, marks, mark_of)
                rows.delete(ids)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled it back already
                connection.execute("ROLLBACK")
            raise
        taken_s = time.monotonic() - started_s
        self._keep_log_small(connection)
        return taken_s

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._known = KnownMarks()  # the next connection counts others' writes from the same number on

    @contextmanager
    def _reading(self, table: str) -> Iterator[tuple[sqlite3.Connection, str | None]]:
        """One snapshot: what was looked at is what is read."""
        connection = self._open()
        connection.execute("BEGIN")
        try:
            yield connection, self._row_id(connection, table)
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        found = hostile_file.identity(self._name, self._names)
        if self._connection is None:
            if found is None:
                raise Absent
            if self._refusal:
                raise Unsafe(self._refusal)
            self._connection = hostile_file.connect(self._name, found, self._names)
            self._guard = Guard(self._connection, TABLES)
            self._identity = found
        elif found != self._identity:
            raise Replaced
        assert self._guard is not None
        self._guard.begin()
        return self._connection

    def _check_identity(self) -> None:
        """Once more, under the lock: a name that was exchanged since is not written to."""
        if hostile_file.identity(self._name, self._names) != self._identity:
            raise Replaced
        assert self._identity is not None
        hostile_file.check_descriptors(self._name, self._identity, self._names)

    def _row_id(self, connection: sqlite3.Connection, table: str) -> str | None:
        schema = connection.execute("PRAGMA schema_version").fetchone()
        if schema != self._schema:
            self._row_ids, self._schema = {}, schema
        if table not in self._row_ids:
            self._row_ids[table] = hostile_file.rowid_name(connection, table, TABLES[table])
        return self._row_ids[table]

    def _keep_log_small(self, connection: sqlite3.Connection) -> None:
        """PASSIVE takes no write lock and waits for nobody, so the controller does not notice it."""
        self._deletes += 1
        with suppress(FileNotFoundError):
            size = os.lstat(self._name + "-wal").st_size
            grown = size > self._log_bytes or self._deletes >= LOG_LIMIT_DELETES
            if size > LOG_LIMIT_BYTES and grown:
                self._log_bytes, self._deletes = size, 0
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class KnownMarks:
    """What rows held when they were read; it is what they hold as long as no other connection has written since."""

    def __init__(self) -> None:
        self._since: tuple[str, int] | None = None
        self._marks: dict[int, bytes] = {}

    def begin(self, table: str, others_writes: int) -> None:
        """Rows are read in this state of the file; what was read in another one is forgotten."""
        if self._since != (table, others_writes) or len(self._marks) > MAX_KNOWN:
            self._since, self._marks = (table, others_writes), {}

    def add(self, ids: Sequence[int], marks: Sequence[bytes]) -> None:
        self._marks.update(zip(ids, marks, strict=True))

    def still_hold(self, table: str, others_writes: int, ids: Sequence[int], marks: Sequence[bytes]) -> bool:
        """For certain; False says nothing."""
        if self._since != (table, others_writes):
            return False
        return all(self._marks.pop(row_id, None) == mark for row_id, mark in zip(ids, marks, strict=True))


def _others_writes(connection: sqlite3.Connection) -> int:
    """Another number after each commit of another connection; of the transaction that is open."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _dense(ids: Sequence[int]) -> bool:
    return ids[-1] - ids[0] == len(ids) - 1


class Rows:
    """Rows of one table by rowid, which `id INTEGER PRIMARY KEY` is another name of, and which nothing can bend."""

    def __init__(self, connection: sqlite3.Connection, table: str, row_id: str) -> None:
        self._connection = connection
        self._table = table
        self._row_id = row_id
        self._columns = TABLES[table]

    def read(self, first_id: int, last_id: int, limit: int) -> Iterator[tuple[Any, ...]]:
        """Strictly ascending; the row after which a value over the limit comes may be the last."""
        sql = (
            f"SELECT {self._row_id}, {', '.join(self._columns)} FROM {self._table}"
            f" WHERE {self._row_id} BETWEEN ? AND ? ORDER BY {self._row_id} LIMIT ?"
        )
        try:
            for row in self._connection.execute(sql, (first_id, last_id, limit)):
                if row[0] < first_id:
                    raise Unsafe("the rows of the inbox are not in order: the file is damaged")
                first_id = row[0] + 1
                yield row
        except sqlite3.DataError:  # a value over MAX_VALUE_BYTES, in the next row or in the one after it
            next_row = f"SELECT {self._row_id} FROM {self._table} WHERE {self._row_id} >= ? ORDER BY 1 LIMIT 1"
            yield self.row(self._connection.execute(next_row, (first_id,)).fetchone()[0])

    def row(self, row_id: int) -> tuple[Any, ...]:
        """One row, however big: without its type if that is too big, or with the beginning of its message only."""
        others = [column if column == "message" else f"NULL AS {column}" for column in self._columns]
        for columns in (self._columns, others):
            with suppress(sqlite3.DataError):
                sql = f"SELECT {self._row_id}, {', '.join(columns)} FROM {self._table} WHERE {self._row_id} = ?"
                found = self._connection.execute(sql, (row_id,)).fetchone()
                return found or (row_id, *[None] * len(self._columns))
        with self._connection.blobopen(self._table, "message", row_id, readonly=True) as blob:
            beginning = Oversized(blob.read(hostile_file.BEGINNING_BYTES), len(blob))
        return row_id, *(beginning if column == "message" else None for column in self._columns)

    def compare(self, ids: Sequence[int], marks: Sequence[bytes], mark_of: Callable[[Any], bytes]) -> None:
        """Raises Replaced when a row holds something else than its mark says; a row that is gone is no obstacle."""
        wanted = dict(zip(ids, marks, strict=True))
        if any(mark_of(row) != wanted[row[0]] for row in (self._all(ids) if _dense(ids) else self._each(ids))):
            raise Replaced

    def delete(self, ids: Sequence[int]) -> None:
        if _dense(ids):
            between = f"DELETE FROM {self._table} WHERE {self._row_id} BETWEEN ? AND ?"
            self._connection.execute(between, (ids[0], ids[-1]))
        else:
            one = f"DELETE FROM {self._table} WHERE {self._row_id} = ?"
            self._connection.executemany(one, [(row_id,) for row_id in ids])

    def _all(self, ids: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        first = ids[0]
        while first <= ids[-1]:
            last = None
            for last in self.read(first, ids[-1], len(ids)):
                yield last
            if last is None:
                return
            first = last[0] + 1

    def _each(self, ids: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        for row_id in ids:
            yield from self.read(row_id, row_id, 1)
