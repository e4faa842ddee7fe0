"""A SQLite file that somebody else writes, as the reader process meets it: what may be opened, and what may be run.

The reader is confined (`confinement`), so what stands here is the second line: no link, pipe or device is opened, no
journal that names other files is rolled back, and no expression of the file's schema is ever evaluated.
"""

import os
import sqlite3
import stat
import struct
import time
from collections.abc import Iterable
from typing import Any

#: No message of this size is ever published; a bigger one is met by its beginning only, so it cannot eat our memory.
MAX_VALUE_BYTES = 1 << 20
BEGINNING_BYTES = 1 << 16
#: One statement may take this long before it is given up; what does not even ask is killed by the gateway.
STATEMENT_S = 4.0
BUSY_S = 2.0
SIDE_FILES = ("-journal", "-wal", "-shm")
MAX_INDEXES = 16
PRAGMAS = (
    "trusted_schema=OFF",
    "cell_size_check=ON",
    "mmap_size=0",
    "temp_store=MEMORY",
    "foreign_keys=OFF",
    "recursive_triggers=OFF",
    "wal_autocheckpoint=0",
    "synchronous=FULL",
    "cache_size=-2000",
    "hard_heap_limit=134217728",
)
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1 << 16,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_COLUMN: 500,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 10,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 16,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_OUR_PRAGMAS = frozenset(
    (
        "schema_version",
        "data_version",
        "table_xinfo",
        "index_list",
        "index_xinfo",
        "wal_checkpoint",
        *(p.split("=")[0] for p in PRAGMAS),
    )
)
_OUR_FUNCTIONS = frozenset(("max", "substr", "length"))

Identity = tuple[int, int]


class Unsafe(Exception):  # noqa: N818 - an answer
    """What lies there is not opened, or its table not touched; the text says what is wrong with it."""


def identity(name: str, names: int) -> Identity | None:
    """Of the database file in the working directory, which may have so many names; None while there is none.

    Raises:
        Unsafe: it or a file beside it is not an ordinary file, or the journal belongs to more than this database.
    """
    main = _ordinary(name, names)
    for suffix in SIDE_FILES:
        _ordinary(name + suffix, names)
    if main is not None:
        _refuse_super_journal(name + "-journal")
    return main


def _ordinary(name: str, names: int) -> Identity | None:
    try:
        found = os.lstat(name)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise Unsafe(f"{name} is {_kind(found.st_mode)}, not a file")
    if found.st_nlink > names:
        raise Unsafe(f"{name} has {found.st_nlink} names: it may be another program's file")
    return found.st_dev, found.st_ino


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe"}
    return kinds.get(stat.S_IFMT(mode), "a device or socket")


def _refuse_super_journal(name: str) -> None:
    """SQLite unlinks the file that a journal names as its super-journal, and without that file drops the journal.

    Neither is ours to do: the one could be any file, the other would leave a torn database. The controller's own
    SQLite settles it when it opens the file next.
    """
    try:
        journal = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(journal).st_size
        tail = os.pread(journal, 16, size - 16) if size >= 16 else b""
    finally:
        os.close(journal)
    if tail[8:] == _JOURNAL_MAGIC and struct.unpack(">I", tail[:4])[0]:
        raise Unsafe(f"{name} names another file to be removed with it; the controller must open its database once")


def connect(name: str, expected: Identity, names: int) -> sqlite3.Connection:
    """Open and read the schema; `expected` is what `identity` saw, and what must be open in the end."""
    connection = sqlite3.connect(f"file:{name}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_S)
    try:
        # Before the first statement: that one would roll the journal of one file back into another.
        check_descriptors(name, expected, names)
        connection.text_factory = bytearray
        for limit, value in LIMITS.items():
            connection.setlimit(limit, value)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        check_descriptors(name, expected, names)
    except BaseException:
        connection.close()
        raise
    return connection


def check_descriptors(name: str, expected: Identity, names: int) -> None:
    """What SQLite opened by name is what we looked at: raises Unsafe when a name was swapped in between."""
    opened = [found for fd in range(3, 16) if (found := _descriptor(fd)) is not None]
    allowed = {_ordinary(name + suffix, names) for suffix in ("", *SIDE_FILES)} | {expected}
    identities = {(found.st_dev, found.st_ino) for found in opened if not stat.S_ISDIR(found.st_mode)}
    if expected not in identities or identities - allowed:
        raise Unsafe(f"{name} or a file beside it was exchanged while it was opened")


def _descriptor(fd: int) -> os.stat_result | None:
    try:
        return os.fstat(fd)
    except OSError:
        return None


# --- what may run


class Guard:
    """Installed in a connection: the statements of this module only, and none of them for long."""

    def __init__(self, connection: sqlite3.Connection, tables: Iterable[str]) -> None:
        self._tables = frozenset((*tables, "sqlite_master", "sqlite_schema"))
        self._until_s = 0.0
        connection.set_authorizer(self._authorize)
        connection.set_progress_handler(self._too_long, 50_000)

    def begin(self) -> None:
        self._until_s = time.monotonic() + STATEMENT_S

    def _too_long(self) -> int:
        return int(time.monotonic() > self._until_s)

    def _authorize(self, action: int, first: str | None, second: str | None, _: str | None, inner: str | None) -> int:
        """`inner` names the view or trigger that wants it: nothing of those."""
        if inner is None and self._is_ours(action, (first or "").lower(), (second or "").lower()):
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    def _is_ours(self, action: int, first: str, second: str) -> bool:
        if action in (sqlite3.SQLITE_READ, sqlite3.SQLITE_DELETE):
            return first in self._tables
        if action == sqlite3.SQLITE_PRAGMA:
            return first in _OUR_PRAGMAS
        if action == sqlite3.SQLITE_FUNCTION:
            return second in _OUR_FUNCTIONS
        return action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_TRANSACTION)


def rowid_name(connection: sqlite3.Connection, table: str, wanted: tuple[str, ...]) -> str | None:
    """The name under which the row's number is not hidden by a column; None while there is no such table.

    Looks at the schema without running any of it. Raises Unsafe for everything but an ordinary table with ordinary
    indexes: a trigger would run in our DELETE, an expression of an index or a column whenever a row is touched.
    """
    sql = (
        "SELECT type, rootpage, substr(sql, 1, 20) FROM sqlite_master"
        " WHERE tbl_name = ? COLLATE NOCASE AND type IN ('table', 'view', 'trigger') LIMIT 4"
    )
    found = connection.execute(sql, (table,)).fetchall()
    if not found:
        return None
    kinds = [_table_kind(*row) for row in found]
    if "virtual table" in kinds:
        raise Unsafe(f"the inbox's '{table}' is a virtual table; the controller must remove it")
    if kinds != ["table"]:
        raise Unsafe(f"the inbox's '{table}' is a view or carries a trigger; the controller must remove it")
    columns = connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
    names = [_text(column[1]).lower() for column in columns]
    if missing := [name for name in wanted if name not in names]:
        raise Unsafe(f"the inbox's '{table}' has no column '{missing[0]}'")
    if any(column[6] for column in columns):
        raise Unsafe(f"the inbox's '{table}' has generated columns; the controller must remove them")
    _check_indexes(connection, table)
    if free := [name for name in _ROWID_NAMES if name not in names]:
        return free[0]
    raise Unsafe(f"the inbox's '{table}' hides the numbers of its rows")


def _table_kind(kind: bytes, root_page: Any, sql: Any) -> str:
    if kind == b"table" and (not root_page or _text(sql).upper().startswith("CREATE VIRTUAL")):
        return "virtual table"
    return _text(kind)


def _check_indexes(connection: sqlite3.Connection, table: str) -> None:
    indexes = connection.execute(f"PRAGMA index_list({table})").fetchall()
    if len(indexes) > MAX_INDEXES:
        raise Unsafe(f"the inbox's '{table}' has {len(indexes)} indexes; {MAX_INDEXES} are the limit")
    for _, name, _, _, partial in indexes:
        quoted = _text(name).replace('"', '""')
        parts = connection.execute(f'PRAGMA index_xinfo("{quoted}")').fetchall()
        if partial or any(part[1] == -2 for part in parts):
            raise Unsafe(f"the inbox's '{table}' has an index with an expression; the controller must remove it")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, (bytes, bytearray)) else str(value)
