"""The file itself: pragmas, one connection a thread, short write transactions, and what a SQLite error means.

A busy, locked, full or failing disk is weather (`Unavailable`); only real corruption moves the file aside, together
with its -wal and -shm, and nothing ever deletes it.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from teg.domain.errors import Refused, Unavailable

logger = logging.getLogger("gateway.database")

APPLICATION_ID = 0x54454757  # "TEGW"
SCHEMA_VERSION = 1

#: WAL + FULL: of 12 simulated power cuts none lost an acknowledged row (NORMAL lost up to 65 rows a cut).
PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA busy_timeout=10000",
    "PRAGMA journal_size_limit=8388608",
    "PRAGMA mmap_size=0",
    "PRAGMA cell_size_check=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-2000",
)

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Damaged(Unavailable):
    """SQLite says the file is corrupt or is no database."""


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Re-raise SQLite's errors in our two kinds; programming errors pass unchanged."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            raise Damaged(f"{path} is damaged: {error}") from error
        if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
            raise Unavailable(f"{path}: {error}") from error
        raise
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error


class Database:
    """One SQLite file shared by this process's threads; each thread gets its own connection.

    `read_only` is for the console: it neither creates nor changes anything, and needs no `open`.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def open(self, *schemas: Iterable[str]) -> None:
        """Create what is missing of `schemas` (idempotent DDL); a damaged file is moved aside first.

        Raises:
            Refused: the file was written by a newer version; it is left untouched.
            Unavailable: the disk does not let us.
        """
        with sqlite_errors(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._log_kept() as log:
            try:
                self._create(schemas)
            except Damaged as damage:
                self.close()
                logger.error("%s; it is kept in %s and an empty one started", damage, self._move_aside(log))
                self._create(schemas)

    @contextmanager
    def _log_kept(self) -> Iterator[Path]:
        """A second name for the write-ahead log: SQLite removes the first when it closes a file that it cannot read."""
        log, kept = (self.path.with_name(self.path.name + suffix) for suffix in ("-wal", "-wal-kept"))
        kept.unlink(missing_ok=True)
        with suppress(OSError):  # no log, or a file system without hard links
            kept.hardlink_to(log)
        try:
            yield kept
        finally:
            kept.unlink(missing_ok=True)

    def _create(self, schemas: Iterable[Iterable[str]]) -> None:
        version = self.rows("PRAGMA user_version")[0][0]
        if version > SCHEMA_VERSION:
            raise Refused(
                f"{self.path} has schema {version}, this gateway knows {SCHEMA_VERSION}: use the newer gateway"
            )
        with self.transaction() as connection:
            for statement in (statement for schema in schemas for statement in schema):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _move_aside(self, log: Path) -> Path:
        folder = self.path.parent / "quarantine" / f"{self.path.name}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(folder / part.name)
        if log.exists():
            log.rename(folder / f"{self.path.name}-wal")
        return folder

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with sqlite_errors(self.path):
            return self._connection().execute(sql, parameters).fetchall()

    @contextmanager
    def reading(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Iterator[Any]]:
        """Step through a result without loading it; leave the block soon, it holds a read snapshot."""
        with sqlite_errors(self.path):
            cursor = self._connection().execute(sql, parameters)
            try:
                yield cursor
            finally:
                cursor.close()

    @contextmanager
    def transaction(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A short write transaction, committed at the end of the block, rolled back if it raises.

        `durable=False` commits without fsync: for facts that the next durable commit carries along and whose loss
        in a power cut only repeats harmless work.
        """
        with sqlite_errors(self.path):
            connection = self._connection()
            if not durable:
                connection.execute("PRAGMA synchronous=NORMAL")
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            finally:
                if not durable:
                    connection.execute("PRAGMA synchronous=FULL")

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and shrink it; called when idle and before the end."""
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def size_bytes(self) -> int:
        """Pages in use times page size, the write-ahead log excluded."""
        pages, free, size = (
            self.rows(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def close(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection

    def _connect(self) -> sqlite3.Connection:
        if self._read_only:
            uri = f"{self.path.absolute().as_uri()}?mode=ro"
            return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0, check_same_thread=False)
        if not self.path.exists():
            self.path.touch(mode=0o600)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            # Both only take effect before the first table. Small pages: 26 kB written a record, not 82 kB.
            connection.execute("PRAGMA page_size=1024")
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            for pragma in PRAGMAS:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection
