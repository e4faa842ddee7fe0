"""The file itself: one connection a thread, short write transactions, and a sound file at its path at any time.

A busy, locked, full or failing disk passes (`Unavailable`). A file that is corrupt, or that somebody else touched,
is moved aside together with its -wal and -shm, never deleted, and a sound one takes its place at once: with all rows
when the open file still holds them (SQLite's backup), else an empty one that the salvage fills (`salvage.py`).
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from teg.adapters.gateway_db import quarantine
from teg.adapters.gateway_db.connections import (
    Damaged,
    Gate,
    InputOutputError,
    LastIds,
    commit_level,
    connect,
    connect_read_only,
    prepare,
    sqlite_errors,
    waiting_at_most,
)
from teg.adapters.gateway_db.names import Names
from teg.adapters.gateway_db.open_files import SUFFIXES, Disturbed, OpenFiles
from teg.domain.errors import Refused, Unavailable

logger = logging.getLogger("gateway.database")

APPLICATION_ID = 0x54454757  # "TEGW"
SCHEMA_VERSION = 1

#: Pages in the write-ahead log that bring the next checkpoint.
CHECKPOINT_PAGES = 2000
#: A file up to this size is looked through at the start; a larger one by `check`, in the background.
QUICK_CHECK_BYTES = 16 << 20
#: A write waits so long for its turn, and for another program; during a stop only so long.
WRITE_WAIT_S, STOPPING_PATIENCE_S = 10.0, 0.5
Hook = Callable[["Database", Path | None], None]


class Database:
    """One SQLite file shared by this process's threads; each thread gets its own connection.

    `read_only` is for the console: it neither creates nor changes anything, and needs no `open`.
    `on_fresh(database, folder)` is called when an empty file was begun in place of the set in `folder`.
    """

    def __init__(self, path: Path, read_only: bool = False, on_fresh: Hook | None = None) -> None:
        self.committed: Callable[[], None] = lambda: None  #: called after each commit
        self.path = path
        self._read_only = read_only
        self._on_fresh = on_fresh
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._gate = Gate()
        self._files: OpenFiles | None = None
        self._names = Names(path, self._close)
        self._statements: list[str] = []
        self._opened = read_only
        self._patience_s = WRITE_WAIT_S
        self.last_ids = LastIds()

    # --- opening and closing -------------------------------------------------------------------------------

    def open(self, *schemas: Iterable[str]) -> None:
        """Create what is missing of `schemas` (idempotent DDL); a damaged file is moved aside first.

        Raises:
            Refused: the file was written by a newer version; it is left untouched.
            Unavailable: the disk does not let us.
        """
        self._statements = [statement for schema in schemas for statement in schema]
        with self._gate.alone(), sqlite_errors(self.path):
            self._make_directory()
            self._names.finish_interrupted()
            if quarantine.orphan_log(self.path):  # before SQLite sees it
                self._begin_anew(f"{self.path} is missing or empty, its write-ahead log is not")
                self._opened = True
                return
            try:
                self._begin()
                self._check_at_start()
            except Damaged as damage:
                self._begin_anew(str(damage))
            except BaseException:
                self._close()
                raise
            self._opened = True

    def _begin(self) -> None:
        self._create()
        self._watch()

    def _create(self) -> None:
        if not self.path.exists():
            self.path.touch(mode=0o600)
        version = self.rows("PRAGMA user_version")[0][0]
        if version > SCHEMA_VERSION:
            raise Refused(
                f"{self.path} has schema {version}, this gateway knows {SCHEMA_VERSION}: use the newer gateway"
            )
        with self.transaction() as connection:
            for statement in self._statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _watch(self) -> None:
        with sqlite_errors(self.path):
            self._files = OpenFiles(Path(os.path.realpath(self.path)))

    def _check_at_start(self) -> None:
        if self.file_bytes() <= QUICK_CHECK_BYTES:  # of what is open, whatever stands at the name
            self.check()

    def stop_waiting(self) -> None:
        """The process stops: what is locked now is not waited for any more."""
        self._patience_s = STOPPING_PATIENCE_S

    def close(self) -> None:
        with self._gate.alone():
            self._close()

    def _close(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()
        self._local = threading.local()
        files, self._files = self._files, None
        if files is not None:
            files.close()

    # --- use -----------------------------------------------------------------------------------------------

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._using() as connection:
            return connection.execute(sql, parameters).fetchall()

    @contextmanager
    def reading(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Iterator[Any]]:
        """Step through a result without loading it; leave the block soon, it holds a read snapshot."""
        with self._using() as connection, closing(connection.execute(sql, parameters)) as cursor:
            yield cursor

    @contextmanager
    def transaction(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A short write transaction, committed at the end of the block, rolled back if it raises.

        When it ends well the rows are in the file that stands at `path`: whoever deletes its own copy then is right.
        `durable=False` commits without fsync: for facts that the next durable commit carries along and whose loss
        in a power cut only repeats harmless work.
        """
        self.verify()
        with self._using() as connection, self._write_turn(), commit_level(connection, durable):
            if self._patience_s < WRITE_WAIT_S:
                waiting_at_most(connection, self._patience_s)
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            self.committed()
            self._after_commit(connection)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and shrink it; called when idle and before the end."""
        with self._using() as connection, self._write_turn():
            self._checkpoint(connection, "TRUNCATE")

    @property
    def opened(self) -> bool:
        return self._opened

    def check(self, table: str = "") -> None:
        """Look through the whole file, or through one table.

        Raises:
            Damaged: something in it is not as it should be; it was replaced.
        """
        with self._using() as connection:
            found = connection.execute(f"PRAGMA quick_check({table or 1})").fetchone()[0]
            if found != "ok":
                raise Damaged(f"{self.path} is damaged: {found}")

    def verify(self) -> None:
        """The file at `path` is the one we write into, as we wrote it; made so again where it was not.

        Raises:
            Unavailable: it could not be made so; nothing that is kept elsewhere may be deleted now.
        """
        with self._using(), self._write_turn():
            if self._files is not None:
                self._files.verify()

    def sound(self) -> bool:
        """`verify` without the mending: a look of some microseconds."""
        with self._writing:
            return self._files is None or self._files.whole()

    def size_bytes(self) -> int:
        """Pages in use times page size, the write-ahead log excluded."""
        return (self._pragma("page_count") - self.free_pages()) * self._pragma("page_size")

    def file_bytes(self) -> int:
        """What the main file takes on the disk after the next checkpoint, free pages included."""
        return self._pragma("page_count") * self._pragma("page_size")

    def free_pages(self) -> int:
        return self._pragma("freelist_count")

    def vacuum(self, pages: int) -> int:
        """Give so many free pages back to the file system; returns how many there were to give."""
        before = self._pragma("page_count")
        with self._using() as connection, self._write_turn():
            connection.executescript(f"PRAGMA incremental_vacuum({pages})")  # `execute` stops after the first page
            self._checkpoint(connection, "TRUNCATE")
        return before - self._pragma("page_count")

    def _pragma(self, name: str) -> int:
        return int(self.rows(f"PRAGMA {name}")[0][0])

    # --- inside --------------------------------------------------------------------------------------------

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection. Damage and disturbance are dealt with when its outermost use has ended."""
        self._ensure_connection()
        files, outermost = self._files, False
        try:
            with self._gate.using() as outermost, sqlite_errors(self.path):
                files = self._files
                yield self._connection()
        except Disturbed as disturbed:
            if not outermost:
                raise
            self._mend(disturbed)
        except (Damaged, InputOutputError) as damage:
            if outermost and files is not None:
                self._replace_if_broken(files, damage)
            raise

    def _ensure_connection(self) -> None:
        """A new connection opens by name, so it is here that a name which leads elsewhere is met."""
        if getattr(self._local, "connection", None) is not None:
            return
        if not (self._opened or self._gate.alone_here):
            raise Unavailable(f"{self.path} is not available yet")
        try:
            with self._gate.using() as outermost, sqlite_errors(self.path):
                self._connection()
        except Disturbed as disturbed:
            if not outermost:
                raise
            self._mend(disturbed)

    @contextmanager
    def _write_turn(self) -> Iterator[None]:
        """Our own threads queue here, not in SQLite, which polls."""
        if not self._writing.acquire(timeout=self._patience_s):
            raise Unavailable(f"{self.path}: database is locked by another thread")
        try:
            yield
        finally:
            self._writing.release()

    def _after_commit(self, connection: sqlite3.Connection) -> None:
        if self._files is None:
            return
        self._files.verify()
        self.last_ids.read(connection)
        if self._files.frames() >= CHECKPOINT_PAGES:
            with suppress(sqlite3.OperationalError):  # committed it is; the next one tries again
                self._checkpoint(connection, "PASSIVE")

    def _checkpoint(self, connection: sqlite3.Connection, mode: str) -> None:
        """Never from a log that is not as we wrote it: SQLite would copy its garbage into the file."""
        if self._files is None:
            return
        self._files.verify()
        try:
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        finally:
            self._files.checkpointed()

    def _connection(self) -> sqlite3.Connection:
        if getattr(self._local, "connection", None) is None:
            with self._write_turn():  # a checkpoint writes into the main file, and says so only when it is done
                self._local.connection = self._connect()
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _connect(self) -> sqlite3.Connection:
        """A new connection opens the files by name, so the names are looked at before and after.

        One that meets damage stays open until the files have moved: closing it would delete the log by name.
        """
        if self._read_only:
            return self._kept(connect_read_only(self.path))
        if self._files is not None:
            self._files.verify()
        connection = connect(self.path)
        try:
            if self._files is not None:
                self._files.verify()
            with sqlite_errors(self.path):
                prepare(connection)
        except Damaged:
            self._kept(connection)
            raise
        except BaseException:
            connection.close()
            raise
        return self._kept(connection)

    def _kept(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        with self._lock:
            self._connections.append(connection)
        return connection

    # --- a sound file in place of one that is not ----------------------------------------------------------

    def _mend(self, disturbed: Disturbed) -> None:
        """Returns when everything that was committed is in a sound file at `path`.

        Raises:
            Unavailable: it is not.
        """
        with self._gate.alone(), sqlite_errors(self.path):
            files = self._files
            if files is None or files.whole():
                return
            self._make_directory()
            if disturbed.content and (self._rescue_in_place(files, disturbed) or self._rescue_into_copy(disturbed)):
                return
            self._begin_anew(str(disturbed))
        raise Unavailable(f"{disturbed}; the gateway goes on in a new file")

    def _replace_if_broken(self, files: OpenFiles, damage: Unavailable) -> None:
        with self._gate.alone(), sqlite_errors(self.path):
            if self._files is files and (isinstance(damage, Damaged) or not files.whole()):
                self._make_directory()
                self._begin_anew(str(damage))

    def _rescue_in_place(self, files: OpenFiles, disturbed: Disturbed) -> bool:
        """The main file is where it was: it takes in the whole log, which then is not needed any more."""
        if not files.is_ours(""):
            return False
        busy = self._connections[0].execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            return False
        foreign = [suffix for suffix in SUFFIXES[1:] if not files.is_ours(suffix)]
        folder = quarantine.move_aside(self.path, foreign)  # before SQLite, when it closes, deletes by name
        self._close()
        logger.error("%s; nothing is lost%s", disturbed, f", what stood there is in {folder}" if folder else "")
        self._begin()
        return True

    def _rescue_into_copy(self, disturbed: Disturbed) -> bool:
        """SQLite copies what it has open into a new file, which takes the name. False: what it has open is damaged."""
        if not self._names.save(self._connections[0]):
            return False
        folder = self._names.take()
        rest = f", what stood there is in {folder}" if folder else ""
        logger.error("%s; all rows were saved into a new file%s", disturbed, rest)
        self._begin()
        return True

    def _begin_anew(self, reason: str) -> None:
        for connection in self._connections[:1]:
            with suppress(sqlite3.Error):
                self.last_ids.read(connection)
        folder = self._names.set_aside()
        if folder is not None:
            quarantine.note(folder, quarantine.TO_SALVAGE, reason)
            logger.error("%s; it is kept in %s and an empty one started", reason, folder)
        else:
            logger.error("%s; an empty one started", reason)
        self._begin()
        with self.transaction() as connection:
            self.last_ids.skip(connection)
        if self._on_fresh is not None:
            self._on_fresh(self, folder)

    def _make_directory(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
