"""Where queued tasks lie and in which form: storage chosen by URL, plain JSON, never a pickle."""

import datetime
import logging
from pathlib import Path
from typing import Any

import orjson
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import BaseStorage, PostgresStorage, PriorityRedisStorage, SqliteStorage

from domain.errors import Refused

logger = logging.getLogger("gateway.queue")

MAX_MESSAGE_BYTES = 1 << 20


class PlainSerializer(Serializer):
    """JSON only, no fallback: a pickle in the queue would be code execution for whoever can write one row."""

    _OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS

    def _serialize(self, data: Any) -> bytes:
        if not isinstance(data, Message):
            raise Refused(f"only tasks go through the queue, not {type(data).__name__}")
        if data.on_complete or data.on_error or data.chord_config:
            raise Refused("pipelines and chords are not used: they lose stages in a crash")
        # Dates are ours (eta, expiry); an argument may only be str, int, float, bool, None, list or dict.
        orjson.dumps([data.args, data.kwargs], option=self._OPTIONS | orjson.OPT_PASSTHROUGH_DATETIME)
        encoded = orjson.dumps(data._asdict(), option=self._OPTIONS)
        if len(encoded) > MAX_MESSAGE_BYTES:
            raise Refused(f"task {data.name} carries {len(encoded)} bytes, the limit is {MAX_MESSAGE_BYTES}")
        return encoded

    def _deserialize(self, data: bytes) -> Message:
        if len(data) > MAX_MESSAGE_BYTES:
            raise Refused(f"queued task of {len(data)} bytes, the limit is {MAX_MESSAGE_BYTES}")
        fields = orjson.loads(data)
        if not isinstance(fields, dict) or not set(fields) <= set(Message._fields):
            raise Refused("queued task is not one of ours")
        for key in ("eta", "expires_resolved"):
            if fields.get(key) is not None:
                fields[key] = datetime.datetime.fromisoformat(fields[key])
        fields["args"] = tuple(fields.get("args") or ())
        return Message(**fields)


class QueueFile(SqliteStorage):
    """Huey's SQLite queue, tuned for a file that may be thrown away: NORMAL instead of FULL, never its own sleep."""

    blocking = True  # we wait in GatewayHuey.dequeue; Huey must not sleep on top of it
    begin_sql = "begin immediate"

    def _set_journal_mode(self, conn: Any) -> None:
        # A task is a few hundred bytes: with 512-byte pages a trigger writes an eighth of what 4 KiB pages cost.
        conn.execute("pragma page_size=512")
        super()._set_journal_mode(conn)

    def _create_connection(self) -> Any:
        connection = super()._create_connection()
        connection.execute("pragma synchronous=normal")
        return connection


class WatchedFile:
    """Notices writes of other connections (`data_version`) and the removal of the queue file (inode)."""

    def __init__(self, url: str) -> None:
        self._storage = QueueFile("watch", filename=_sqlite_path(url), create_tables=False, cache_mb=1)
        self._path = Path(self._storage.filename)
        self._inode = self._path.stat().st_ino
        self._version = self._data_version()

    def replaced(self) -> bool:
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def written(self) -> bool:
        before, self._version = self._version, self._data_version()
        return before != self._version

    def _data_version(self) -> int:
        return int(self._storage.conn.execute("pragma data_version").fetchone()[0])  # type: ignore[attr-defined]


def _sqlite_path(url: str) -> str:
    return url.removeprefix("sqlite://").removeprefix("sqlite:")


def without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def open_storage(url: str, name: str) -> BaseStorage:
    if url.startswith("sqlite:"):
        path = Path(_sqlite_path(url))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _open_queue_file(path, name)
    if url.startswith(("redis://", "rediss://", "unix://")):
        return PriorityRedisStorage(name, url=url, clean_name=False)
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresStorage(name, dsn=url)
    raise Refused(f"TEG_QUEUE_URL names no known storage: {without_password(url)}")


def _open_queue_file(path: Path, name: str) -> BaseStorage:
    """A queue file that is no database any more is moved aside: nothing in it is worth a stopped gateway."""
    try:
        return QueueFile(name, filename=str(path), cache_mb=1)
    except Exception as error:
        if "malformed" not in str(error) and "not a database" not in str(error):
            raise
        logger.error("the queue file is damaged (%s); moved aside, starting an empty one", error)
        for suffix in ("", "-wal", "-shm"):
            damaged = path.with_name(path.name + suffix)
            if damaged.exists():
                damaged.replace(damaged.with_name(damaged.name + ".damaged"))
        return QueueFile(name, filename=str(path), cache_mb=1)
