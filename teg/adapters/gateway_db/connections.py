"""How `gateway.db` is opened: the pragmas with their reasons, and what an error of SQLite means."""

import sqlite3
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
    "PRAGMA journal_size_limit=8388608",
    "PRAGMA wal_autocheckpoint=0",
    "PRAGMA mmap_size=0",
    "PRAGMA cell_size_check=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-1000",  # for each thread; it works at the ends of the file, the kernel keeps the rest
)

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
    # Both only take effect before the first table. Small pages: 26 kB written a record, not 82 kB.
    connection.execute("PRAGMA page_size=1024")
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    for pragma in PRAGMAS:
        connection.execute(pragma)
