"""The controller's database, an ingest mailbox: read by batches, emptied in short transactions, trusted in nothing.

The controller is another process on the same file; it gives up after 5 s of lock. So every write here is one small
transaction (its size follows the measured time), there is no checkpoint that takes the write lock, and the file is
never created, replaced or changed in its schema by us.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from domain.errors import Unavailable

#: Lock time aimed at; the promise is 100 ms, and one slow fsync of an SD card must fit on top.
AIM_S = 0.02
MAX_CHUNK = 2000
WAL_LIMIT_BYTES = 4 << 20


class Inbox:
    """`domain.recording.Inbox` and `domain.ports.Heartbeat` over `communication_queue.db`; usable from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._chunk = 250

    def read(self, after_id: int, max_rows: int, max_bytes: int) -> list[tuple[int, Any, Any]]:
        """(id, type, message) by id; TEXT comes as bytearray, BLOB as bytes. Empty while there is no inbox yet."""
        rows: list[tuple[int, Any, Any]] = []
        size = 0
        with self._open() as connection:
            if connection is None or not _is_plain_table(connection, "messages"):
                return rows
            sql = "SELECT id, type, message FROM messages WHERE id > ? ORDER BY id LIMIT ?"
            for row in connection.execute(sql, (after_id, max_rows)):
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
                if connection is None:
                    return  # the file is gone, and the rows with it
                self._adapt(_delete_chunk(connection, chunk))
            position += len(chunk)

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
                self._close()
                raise Unavailable(f"{self._path}: {error}") from error

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
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=2.0, check_same_thread=False)
    connection.text_factory = bytearray
    for pragma in ("synchronous=FULL", "trusted_schema=OFF", "mmap_size=0", "wal_autocheckpoint=0", "cache_size=-1000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _is_plain_table(connection: sqlite3.Connection, name: str) -> bool:
    """A trigger planted in the inbox would run inside our DELETE, a view could be anything: neither is touched."""
    kinds = connection.execute(
        "SELECT type FROM sqlite_master WHERE tbl_name = ?1 AND type IN ('table', 'view', 'trigger')", (name,)
    ).fetchall()
    if any(kind != b"table" for (kind,) in kinds):
        raise Unavailable(f"the inbox's '{name}' is a view or carries a trigger; the controller must remove it")
    return bool(kinds)


def _delete_chunk(connection: sqlite3.Connection, ids: Sequence[int]) -> float:
    """Returns the seconds for which the write lock was held."""
    connection.execute("BEGIN IMMEDIATE")
    started_s = time.monotonic()
    try:
        if ids[-1] - ids[0] == len(ids) - 1:
            connection.execute("DELETE FROM messages WHERE id BETWEEN ? AND ?", (ids[0], ids[-1]))
        else:
            connection.executemany("DELETE FROM messages WHERE id = ?", [(row_id,) for row_id in ids])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return time.monotonic() - started_s
