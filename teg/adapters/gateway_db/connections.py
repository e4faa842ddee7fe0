"""How `gateway.db` is opened and used: pragmas with their reasons, errors of SQLite, the gate, ids of a fresh file."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teg.domain.errors import Unavailable

#: WAL + FULL: of 12 simulated power cuts none lost an acknowledged row (NORMAL lost up to 65 rows a cut). Checkpoints
#: are ours alone (`Database.checkpoint`): a change of the main file that we did not make must be somebody else's.
PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA busy_timeout=10000",
    "PRAGMA journal_size_limit=1200000",  # what a checkpoint comes at; a log that a reader held up is cut after it
    "PRAGMA mmap_size=0",
    "PRAGMA cell_size_check=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-500",  # for each thread; it works at the ends of the file, the kernel keeps the rest
)

_INCREMENTAL = 2
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Damaged(Unavailable):
    """SQLite says the file is corrupt or is no database."""


class InputOutputError(Unavailable):
    """The disk did not do it, or the write-ahead log was cut under us: worth a look at the files."""


class Full(Unavailable):
    """No room on the disk."""


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
            raise _KINDS.get(code, Unavailable)(f"{path}: {error}") from error
        raise
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error


_KINDS: dict[int, type[Unavailable]] = {
    sqlite3.SQLITE_IOERR: InputOutputError,
    sqlite3.SQLITE_CANTOPEN: InputOutputError,
    sqlite3.SQLITE_FULL: Full,
}


def connect_read_only(path: Path) -> sqlite3.Connection:
    """For the console: neither creates nor changes anything."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0, check_same_thread=False)


def connect(path: Path) -> sqlite3.Connection:
    """Without pragmas: nothing is written or read yet."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def prepare(connection: sqlite3.Connection) -> None:
    """Writes nothing into a file that is in use: its other connections take a change that is not theirs for damage."""
    connection.execute("PRAGMA wal_autocheckpoint=0")  # before anything is committed
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
        # Both only take effect before the first table. Small pages: 26 kB written a record, not 82 kB.
        connection.execute("PRAGMA page_size=1024")
        connection.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
    for pragma in PRAGMAS:
        connection.execute(pragma)


def waiting_at_most(connection: sqlite3.Connection, seconds: float) -> None:
    """For a lock of another program."""
    connection.execute(f"PRAGMA busy_timeout={seconds * 1000:.0f}")


@contextmanager
def commit_level(connection: sqlite3.Connection, durable: bool) -> Iterator[None]:
    if durable:
        yield
        return
    connection.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous=FULL")


#: Ids of a fresh file begin so far beyond the last one known; more can hardly have been given out since it was noted.
GAP = 1_000_000


class LastIds:
    """The highest row id given out so far, by table.

    Row ids never come back, not even in a fresh file: an acknowledgement for an old row may still be on the way.
    """

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def note(self, table: str, last: int) -> None:
        self.known[table] = max(self.known.get(table, 0), last)

    def read(self, connection: sqlite3.Connection) -> None:
        if _counts_ids(connection):
            for table, last in connection.execute("SELECT name, seq FROM sqlite_sequence"):
                self.note(table, last)

    def skip(self, connection: sqlite3.Connection) -> None:
        """Let the ids of this (fresh) file begin beyond those that are known."""
        if not _counts_ids(connection):
            return
        for table, last in self.known.items():
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last + GAP))


def _counts_ids(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'")
    return found.fetchone() is not None


class Gate:
    """Who may use the file: many threads at once, or one alone that replaces it.

    `using` is re-entrant; `alone` waits until nobody uses the file and keeps everybody else out meanwhile.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._owner: int | None = None
        self._local = threading.local()

    @contextmanager
    def using(self) -> Iterator[bool]:
        """Yields True for the outermost use of this thread, outside of `alone`."""
        depth = getattr(self._local, "depth", 0)
        if depth == 0:
            self._enter()
        self._local.depth = depth + 1
        try:
            yield depth == 0 and self._owner != threading.get_ident()
        finally:
            self._local.depth = depth
            if depth == 0:
                self._leave()

    @property
    def alone_here(self) -> bool:
        """True in the thread that is inside of `alone`."""
        return self._owner == threading.get_ident()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Never inside of `using`: it would wait for itself."""
        with self._changed:
            self._changed.wait_for(lambda: self._owner is None)
            self._owner = threading.get_ident()
            self._changed.wait_for(lambda: self._users == 0)
        try:
            yield
        finally:
            with self._changed:
                self._owner = None
                self._changed.notify_all()

    def _enter(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._owner in (None, threading.get_ident()))
            self._users += 1

    def _leave(self) -> None:
        with self._changed:
            self._users -= 1
            self._changed.notify_all()
