"""The controller's database, an ingest mailbox: read by batches, emptied in short transactions, trusted in nothing.

The controller is another process on the same file; it gives up after 5 s of lock. So every write here is one small
transaction (its size follows the measured time), there is no checkpoint that takes the write lock, and the file is
never created, replaced or changed in its schema by us.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from teg.domain.errors import Unavailable
from teg.domain.telemetry.ingest import Replaced
from teg.domain.telemetry.validation import Oversized

#: Lock time aimed at; the promise is 100 ms, and one slow fsync of an SD card must fit on top.
AIM_S = 0.02
MAX_CHUNK = 2000
#: No message of this size is ever published; a bigger one is met by its beginning only, so it cannot eat our memory.
MAX_VALUE_BYTES = 1 << 20
BEGINNING_BYTES = 1 << 16
#: Controllers checkpoint their own log; for those that do not, we do it from here on.
LOG_LIMIT_BYTES = 4 << 20
PRAGMAS = ("synchronous=FULL", "trusted_schema=OFF", "mmap_size=0", "wal_autocheckpoint=0", "cache_size=-1000")


class Inbox:
    """`telemetry.ingest.Inbox` and `ports.Heartbeat` over `communication_queue.db`; usable from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._generation = 0  #: how often the file was opened
        self._read_generation = 0
        self._chunk = 250

    def read(self, after_id: int, max_rows: int, max_bytes: int) -> list[tuple[int, Any, Any]]:
        """(id, type, message) by id; TEXT comes as bytearray, BLOB as bytes. Empty while there is no inbox yet."""
        rows: list[tuple[int, Any, Any]] = []
        size = 0
        with self._open() as connection:
            if connection is None or not _is_plain_table(connection, "messages"):
                return rows
            self._read_generation = self._generation
            for row in _rows(connection, after_id, max_rows):
                rows.append(row)
                size += len(row[2]) if isinstance(row[2], (bytes, bytearray)) else 8
                if size >= max_bytes:
                    break
        return rows

    def delete(self, ids: Sequence[int]) -> None:
        """Remove exactly these rows, a chunk a transaction, so that the controller can write in between."""
        position = 0
        while position < len(ids):
            chunk = ids[position : position + self._chunk]
            with self._open() as connection:
                if connection is None or self._generation != self._read_generation:
                    raise Replaced(f"{self._path} is not the file any more that the rows were read from")
                self._adapt(_delete_chunk(connection, chunk))
            position += len(chunk)
        self._keep_log_small()

    def has_rows(self) -> bool:
        with self._open() as connection:
            if connection is None or not _is_plain_table(connection, "messages"):
                return False
            return connection.execute("SELECT 1 FROM messages LIMIT 1").fetchone() is not None

    def last_heartbeat_ms(self) -> int | None:
        with self._open() as connection:
            if connection is None or not _is_plain_table(connection, "health_check"):
                return None
            found = connection.execute("SELECT max(timestamp_ms) FROM health_check").fetchone()[0]
        return found if isinstance(found, int) else None

    def close(self) -> None:
        with self._lock:
            self._close()

    def _keep_log_small(self) -> None:
        """PASSIVE takes no write lock and waits for nobody, so the controller does not notice it."""
        log = self._path.with_name(self._path.name + "-wal")
        with suppress(FileNotFoundError):
            if log.stat().st_size > LOG_LIMIT_BYTES:
                with self._open() as connection:
                    if connection is not None:
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _adapt(self, taken_s: float) -> None:
        if taken_s > AIM_S:
            self._chunk = max(1, self._chunk // 2)
        elif taken_s < AIM_S / 4:
            self._chunk = min(MAX_CHUNK, self._chunk * 2)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        """The connection to the file as it is now (a re-created one is opened anew), None while there is none."""
        with self._lock:
            try:
                yield self._current()
            except sqlite3.DatabaseError as error:
                if not _is_busy(error):
                    self._close()
                raise Unavailable(f"{self._path}: {error}") from error
            except OSError as error:
                self._close()
                raise Unavailable(f"{self._path}: {error.strerror}") from error

    def _current(self) -> sqlite3.Connection | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._close()
            return None
        inode = (found.st_dev, found.st_ino)
        if self._connection is None or inode != self._inode:
            self._close()
            self._connection, self._inode = _connect(self._path), inode
            self._generation += 1
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=2.0, check_same_thread=False)
    try:
        connection.text_factory = bytearray
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:  # no database, or it cannot be read now: this is tried again for as long as that lasts
        connection.close()
        raise
    return connection


def _is_busy(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _rows(connection: sqlite3.Connection, after_id: int, max_rows: int) -> Iterator[tuple[int, Any, Any]]:
    """By rowid, which `id INTEGER PRIMARY KEY` is another name of, and which nothing in the table can bend."""
    sql = "SELECT rowid, type, message FROM messages WHERE rowid > ? ORDER BY rowid LIMIT ?"
    try:
        for row in connection.execute(sql, (after_id, max_rows)):
            after_id = row[0]
            yield row
    except sqlite3.DataError:  # a value over MAX_VALUE_BYTES, in the next row or in the one after it
        next_row = "SELECT rowid FROM messages WHERE rowid > ? ORDER BY rowid LIMIT 1"
        yield _row(connection, connection.execute(next_row, (after_id,)).fetchone()[0])


def _row(connection: sqlite3.Connection, row_id: int) -> tuple[int, Any, Any]:
    """One row, however big: without its type if that is too big, with the beginning of its message if it must be."""
    for columns in ("rowid, type, message", "rowid, NULL, message"):
        with suppress(sqlite3.DataError):
            found = connection.execute(f"SELECT {columns} FROM messages WHERE rowid = ?", (row_id,)).fetchone()
            return found or (row_id, None, None)
    with connection.blobopen("messages", "message", row_id, readonly=True) as blob:
        return row_id, None, Oversized(blob.read(BEGINNING_BYTES), len(blob))


def _is_plain_table(connection: sqlite3.Connection, name: str) -> bool:
    """A trigger planted in the inbox would run inside our DELETE, a view could be anything: neither is touched."""
    kinds = connection.execute(
        "SELECT type FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE AND type IN ('table', 'view', 'trigger')",
        (name,),
    ).fetchall()
    if any(kind != b"table" for (kind,) in kinds):
        raise Unavailable(f"the inbox's '{name}' is a view or carries a trigger; the controller must remove it")
    return bool(kinds)


def _delete_chunk(connection: sqlite3.Connection, ids: Sequence[int]) -> float:
    """Returns the seconds for which the write lock was held."""
    connection.execute("BEGIN IMMEDIATE")
    started_s = time.monotonic()
    try:
        _is_plain_table(connection, "messages")
        if ids[-1] - ids[0] == len(ids) - 1:
            connection.execute("DELETE FROM messages WHERE rowid BETWEEN ? AND ?", (ids[0], ids[-1]))
        else:
            connection.executemany("DELETE FROM messages WHERE rowid = ?", [(row_id,) for row_id in ids])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return time.monotonic() - started_s
