"""Where queued tasks lie and in which form: storage chosen by URL, plain JSON, never a pickle."""

from __future__ import annotations

import datetime
import logging
import math
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
from huey.exceptions import ConfigurationError
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import BaseStorage, PostgresStorage, PriorityRedisStorage, SqliteStorage
from inotify_simple import INotify, flags

from teg.domain.errors import Refused, Unavailable
from teg.domain.redaction import redacted_text

logger = logging.getLogger("gateway.queue")

MAX_MESSAGE_BYTES = 1 << 20
#: orjson stops at 254 levels; the message around the arguments needs some.
MAX_DEPTH = 200
#: How long one call waits for a queue file that somebody else holds. What cannot be queued then is kept in memory.
LOCK_WAIT_S = 2.0


class Damaged(Unavailable):
    """The queue file is no database any more, or cannot be read; nothing in it is worth a stopped gateway."""


# --- the wire ----------------------------------------------------------------------------------------------


class PlainSerializer(Serializer):
    """JSON only, no fallback: a pickle in the queue would be code execution for whoever can write one row."""

    def _serialize(self, data: Any) -> bytes:
        if not isinstance(data, Message):
            raise Refused(f"only tasks go through the queue, not {type(data).__name__}")
        _check(data)
        try:
            encoded = orjson.dumps(data._asdict())
        except orjson.JSONEncodeError as error:  # half surrogates, integers beyond 64 bit
            raise Refused(f"task {data.name}: {error}") from error
        if len(encoded) > MAX_MESSAGE_BYTES:
            raise Refused(f"task {data.name} carries {len(encoded)} bytes, the limit is {MAX_MESSAGE_BYTES}")
        return encoded

    def _deserialize(self, data: Any) -> Message:
        """Raises Refused, and only that, whatever `data` is."""
        if not isinstance(data, (bytes, bytearray, memoryview)) or len(data) > MAX_MESSAGE_BYTES:
            raise Refused(f"a queued task is bytes, at most {MAX_MESSAGE_BYTES} of them")
        try:
            fields = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Refused(f"queued task is not JSON: {error}") from error
        if not isinstance(fields, dict) or not set(fields) <= set(Message._fields):
            raise Refused("queued task is not one of ours")
        message = Message(**{"id": None, **fields, "eta": _date(fields, "eta")})
        message = message._replace(expires_resolved=_date(fields, "expires_resolved"))
        _check(message)
        return message._replace(args=tuple(message.args))


_NUMBER = (int, float)
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "name": (str,),
    "args": (list, tuple),
    "kwargs": (dict,),
    "retries": (int,),
    "retry_delay": _NUMBER,
    "retry_backoff": _NUMBER,
    "priority": (*_NUMBER, type(None)),
    "expires": (*_NUMBER, type(None)),
    "eta": (datetime.datetime, type(None)),
    "expires_resolved": (datetime.datetime, type(None)),
    "timeout": (type(None),),
    # Pipelines and chords are not used: they lose stages in a crash.
    "on_complete": (type(None),),
    "on_error": (type(None),),
    "chord_config": (type(None),),
}


def _check(message: Message) -> None:
    """Only what survives JSON unchanged may go through the queue, in both directions."""
    for name, types in _FIELD_TYPES.items():
        if type(getattr(message, name)) not in types:
            raise Refused(f"task {message.name}: {name} cannot be {type(getattr(message, name)).__name__}")
    for value in (*message.args, message.kwargs):
        _check_plain(message.name, value, MAX_DEPTH)


def _check_plain(task: str, value: Any, depth: int) -> None:
    kind = type(value)
    if kind in (str, int, bool, type(None)) or (kind is float and math.isfinite(value)):
        return
    if kind not in (list, dict):
        raise Refused(f"task {task}: {str(value)[:80]} ({kind.__name__}) cannot go through the queue")
    if depth == 0:
        raise Refused(f"task {task}: an argument is nested deeper than {MAX_DEPTH}")
    if kind is dict and any(type(key) is not str for key in value):
        raise Refused(f"task {task}: a key is not text")
    for item in value.values() if kind is dict else value:
        _check_plain(task, item, depth - 1)


def _date(fields: dict[str, Any], key: str) -> datetime.datetime | None:
    """Huey compares naive UTC."""
    text = fields.get(key)
    if text is None:
        return None
    try:
        found = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise Refused(f"queued task: {key} is not a date: {error}") from error
    if found.tzinfo is not None:
        raise Refused(f"queued task: {key} carries a time zone")
    return found


# --- the queue file ----------------------------------------------------------------------------------------


class QueueFile(SqliteStorage):
    """Huey's SQLite queue, tuned for a file that may be thrown away: NORMAL instead of FULL, never its own sleep."""

    blocking = True  # we wait in GatewayHuey.dequeue; Huey must not sleep on top of it
    begin_sql = "begin immediate"

    def _set_journal_mode(self, conn: Any) -> None:
        with _closed_on_failure(conn):
            # A task is a few hundred bytes: small pages write less (docs/decisions/0004-queue-file.md).
            conn.execute("pragma page_size=512")
            super()._set_journal_mode(conn)

    def _create_connection(self) -> Any:
        connection = super()._create_connection()
        with _closed_on_failure(connection):
            connection.execute("pragma synchronous=normal")
        return connection


@contextmanager
def _closed_on_failure(connection: Any) -> Iterator[None]:
    """A file that cannot be opened is tried again twice a second; each try must let go of it."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


#: A commit is visible so long after its first write, at the latest.
COMMIT_S = 2.0


class WatchedFile:
    """Notices writes of other connections (`data_version`) and the removal of the queue file (inode)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._storage = QueueFile("watch", filename=str(path), create_tables=False, cache_mb=1, timeout=LOCK_WAIT_S)
        self._inode = path.stat().st_ino
        self._kernel = _told_of_writes(path.parent)
        self._settled_s = 0.0
        with _closed_on_failure(self):
            self._version = self._data_version()

    def replaced(self) -> bool:
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    @property
    def told_by(self) -> int | None:
        """A descriptor that can be read after a write to the file's directory; None: the kernel does not tell."""
        return None if self._kernel is None else self._kernel.fileno()

    def written(self) -> bool:
        if self._kernel is not None and self._kernel.read(timeout=0):
            self._settled_s = time.monotonic() + COMMIT_S
        if self._kernel is not None and not self.settling:
            return False
        before, self._version = self._version, self._data_version()
        if before == self._version:
            return False
        self._settled_s = 0.0
        return True

    @property
    def settling(self) -> bool:
        """The kernel tells of the write; the commit that it belongs to is seen a moment later."""
        return time.monotonic() < self._settled_s

    def close(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
        self._storage.close()

    def _data_version(self) -> int:
        return int(self._storage.conn.execute("pragma data_version").fetchone()[0])  # type: ignore[attr-defined]


def _told_of_writes(directory: Path) -> INotify | None:
    try:
        kernel = INotify()
    except OSError:  # none left for this account
        return None
    try:
        kernel.add_watch(str(directory), flags.MODIFY | flags.CREATE | flags.MOVED_TO | flags.DELETE)
    except OSError:
        kernel.close()
        return None
    return kernel


def move_aside(path: Path) -> Path:
    """Rename a damaged queue file, its -wal and -shm included; returns the new name."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    for older in path.parent.glob(f"{path.name}.damaged-*"):
        if older.is_file():  # what is none was somebody else's
            older.unlink()  # one is enough to look at; a failing disk must not fill up with them
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if os.path.lexists(part):
            part.replace(aside.with_name(aside.name + suffix))
    return aside


def _open_queue_file(path: Path, name: str) -> BaseStorage:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in (path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")):
        if os.path.lexists(part) and not stat.S_ISREG(part.lstat().st_mode):
            raise Damaged(f"{part} is not an ordinary file")
    path.touch(mode=0o600)
    return QueueFile(name, filename=str(path), cache_mb=1, timeout=LOCK_WAIT_S)


# --- by URL ------------------------------------------------------------------------------------------------


def sqlite_path(url: str) -> Path | None:
    """The queue file, None when the queue is a server."""
    return Path(url.removeprefix("sqlite://").removeprefix("sqlite:")) if url.startswith("sqlite:") else None


def without_password(url: str) -> str:
    """For the log: neither the user's part nor the query, both may carry a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


def open_storage(url: str, name: str) -> BaseStorage:
    """
    Raises:
        Refused: the URL names no storage we know, or its library is not installed.
        Unavailable: the storage cannot be reached now (`Damaged`: the file is no database).
    """
    with storage_errors(url):
        try:
            if path := sqlite_path(url):
                return _open_queue_file(path, name)
            if url.startswith(("redis://", "rediss://", "unix://")):
                return _open_redis(url, name)
            if url.startswith(("postgresql://", "postgres://")):
                return _open_postgresql(url, name)
        except (ConfigurationError, ImportError, ValueError) as error:
            raise Refused(
                f"TEG_QUEUE_URL={without_password(url)} cannot be used: {redacted_text(str(error))}"
            ) from error
    raise Refused(f"TEG_QUEUE_URL names no known storage: {without_password(url)}")


def _open_redis(url: str, name: str) -> BaseStorage:
    """Without the library's own repetitions and pauses: they would block producers; `GatewayHuey` tries twice."""
    from redis import ConnectionPool
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    pool = ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=2.0, socket_timeout=5.0)
    return PriorityRedisStorage(name, connection_pool=pool, clean_name=False)


def _open_postgresql(url: str, name: str) -> BaseStorage:
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.errors import ProgrammingError

    try:
        conninfo_to_dict(url)
    except ProgrammingError as error:
        raise ValueError(str(error)) from error
    return PostgresStorage(name, dsn=url, connect_timeout=3, tcp_user_timeout=5000)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Whatever the storage's library raises becomes Unavailable: a queue that is away comes back."""
    try:
        yield
    except _library_errors(url) as error:
        kind = Damaged if _is_damage(error) else Unavailable
        raise kind(f"the queue {without_password(url)} cannot be used now: {redacted_text(str(error))}") from error


def _library_errors(url: str) -> tuple[type[Exception], ...]:
    with suppress(ImportError):  # a library that is not installed is refused by `open_storage`
        if url.startswith("sqlite:"):
            return (sqlite3.Error, OSError)
        if url.startswith("postgres"):
            return (import_module("psycopg").Error, OSError)
        if url.startswith(("redis", "unix")):
            return (import_module("redis.exceptions").RedisError, OSError)
    return ()


_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
#: What cannot be read stays so, as when the -wal was cut under an open connection, and a new file costs nothing. What
#: cannot be written (a full disk, a quota, a dying card) is not mended by a new file: it is waited for.
_UNREADABLE = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _DAMAGE or code in _UNREADABLE
