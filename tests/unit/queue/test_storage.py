"""The queue's wire format refuses whatever is not plain JSON of ours; the storage is chosen by URL and may fail."""

import datetime
import enum
import os
import pickle
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from huey.registry import Message
from hypothesis import given
from hypothesis import strategies as st

from tasks import triggers
from tasks.lanes import Lane, WakeUp
from tasks.storage import (
    LOCK_WAIT_S,
    MAX_DEPTH,
    MAX_MESSAGE_BYTES,
    Damaged,
    PlainSerializer,
    QueueFile,
    WatchedFile,
    move_aside,
    open_storage,
    sqlite_path,
    storage_errors,
    without_password,
)
from tasks.triggers import Triggers, is_trigger
from teg.domain.errors import Refused, Unavailable
from tests.support.running import assert_closed, noted_connections

ROOT = Path(__file__).resolve().parents[3]
SERIALIZER = PlainSerializer()
NOW = datetime.datetime(2026, 1, 1, 12, 30, 5, 123456)


def message(*args: Any, **fields: Any) -> Message:
    standing: dict[str, Any] = {
        "id": "6f1c",
        "name": "tasks.rpc.handle_rpc",
        "retries": 0,
        "retry_delay": 0,
        "retry_backoff": 0,
        "args": args,
        "kwargs": {},
    }
    return Message(**{**standing, **fields})


def row(**fields: Any) -> bytes:
    """A queued row as a hand could have written it."""
    return orjson.dumps({**orjson.loads(SERIALIZER.serialize(message())), **fields})


class Colour(enum.StrEnum):
    RED = "red"


class Text(str):
    __slots__ = ()


# --- what goes in ------------------------------------------------------------------------------------------


def test_a_message_comes_back_as_it_was() -> None:
    sent = message(7, "ping", {"a": [1, 2.5, None, True, "ü"]}, eta=NOW, expires=10, expires_resolved=NOW, priority=100)
    assert SERIALIZER.deserialize(SERIALIZER.serialize(sent)) == sent


text = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner),
    max_leaves=20,
)


@given(st.lists(plain, max_size=4), st.none() | st.datetimes(), st.floats(0, 1e6), st.none() | st.integers(0, 100))
def test_any_plain_message_comes_back_as_it_was(
    args: list[Any], eta: datetime.datetime | None, delay: float, priority: int | None
) -> None:
    sent = message(*args, eta=eta, retry_delay=delay, priority=priority)
    back = SERIALIZER.deserialize(SERIALIZER.serialize(sent))
    assert back == sent
    assert [type(value) for value in back.args] == [type(value) for value in args]


ODD_ARGUMENTS = [
    NOW,
    datetime.date(2026, 1, 1),
    uuid.uuid4(),
    b"bytes",
    bytearray(b"x"),
    (1, 2),
    {1, 2},
    Colour.RED,
    Text("subclass"),
    float("nan"),
    float("inf"),
    2**70,
    "half \ud800 surrogate",
    {1: "key"},
    {Text("key"): 1},
    [[NOW]],
    {"deep": {"deeper": NOW}},
    object(),
    print,
    lambda: None,
    SimpleNamespace(a=1),
]


@pytest.mark.parametrize("argument", ODD_ARGUMENTS, ids=[type(value).__name__ for value in ODD_ARGUMENTS])
def test_an_argument_that_is_not_plain_is_refused(argument: Any) -> None:
    with pytest.raises(Refused):
        SERIALIZER.serialize(message(argument))
    with pytest.raises(Refused):
        SERIALIZER.serialize(message(kwargs={"value": argument}))


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_nesting_has_an_end() -> None:
    assert SERIALIZER.deserialize(SERIALIZER.serialize(message(nested(MAX_DEPTH)))).args == (nested(MAX_DEPTH),)
    for levels in (MAX_DEPTH + 1, 5000):
        with pytest.raises(Refused, match="nested deeper"):
            SERIALIZER.serialize(message(nested(levels)))


def test_a_message_may_be_a_mebibyte_and_no_more() -> None:
    spare = MAX_MESSAGE_BYTES - len(SERIALIZER.serialize(message("")))
    assert len(SERIALIZER.serialize(message("x" * spare))) == MAX_MESSAGE_BYTES
    with pytest.raises(Refused, match="the limit is 1048576"):
        SERIALIZER.serialize(message("x" * (spare + 1)))


@pytest.mark.parametrize("field", ["on_complete", "on_error", "chord_config", "timeout"])
def test_pipelines_chords_and_time_outs_are_refused(field: str) -> None:
    with pytest.raises(Refused, match=field):
        SERIALIZER.serialize(message(**{field: message()}))


@pytest.mark.parametrize("data", [None, 1, "text", {"a": 1}, ("revoke", True), Exception("an error result")])
def test_only_tasks_go_through_the_queue(data: Any) -> None:
    with pytest.raises(Refused, match="only tasks"):
        SERIALIZER.serialize(data)


# --- what comes out ----------------------------------------------------------------------------------------


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(Refused, match="not JSON"):
            SERIALIZER.deserialize(pickle.dumps(Bomb(canary), protocol))
    assert not canary.exists()
    pickle.loads(pickle.dumps(Bomb(canary)))
    assert canary.exists(), "the bomb itself must work, or this test shows nothing"


GARBAGE: list[Any] = [
    b"",
    b"\x00\xff garbage",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"1",
    SERIALIZER.serialize(message(1))[:-5],
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b" " * (MAX_MESSAGE_BYTES + 1),
    row(args=["x" * MAX_MESSAGE_BYTES]),
    "text instead of bytes",
    None,
    5,
    row(surprise=1),
    row(id=None),
    row(id=5),
    row(name=["tasks.rpc.handle_rpc"]),
    row(name=None),
    row(args="abc"),
    row(args={"a": 1}),
    row(args=5),
    row(args=None),
    row(kwargs=[1]),
    row(kwargs=None),
    row(retries="1"),
    row(retries=1.5),
    row(retry_delay="soon"),
    row(retry_delay=None),
    row(priority="high"),
    row(priority=True),
    row(expires="never"),
    row(eta=5),
    row(eta="tomorrow"),
    row(eta="2026-01-01T00:00:00+01:00"),
    row(expires_resolved="2026-13-01T00:00:00"),
    row(expires_resolved=[1]),
    row(on_complete={"name": "tasks.rpc.handle_rpc"}),
    row(on_error=[1]),
    row(chord_config=["a", 1, 2, {}]),
    row(timeout=1),
    row(args=[nested(MAX_DEPTH + 1)]),
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_a_garbage_row_is_refused(data: Any) -> None:
    with pytest.raises(Refused):
        SERIALIZER.deserialize(data)


@given(st.binary())
def test_only_refused_escapes_for_bytes(data: bytes) -> None:
    with pytest.raises(Refused):
        SERIALIZER.deserialize(data)


@given(st.dictionaries(st.sampled_from(Message._fields), plain))
def test_only_refused_escapes_for_odd_fields(fields: dict[str, Any]) -> None:
    try:
        found = SERIALIZER.deserialize(row(**fields))
    except Refused:
        return
    assert SERIALIZER.deserialize(SERIALIZER.serialize(found)) == found


# --- the queue file ----------------------------------------------------------------------------------------


@pytest.fixture
def queue_path(tmp_path: Path) -> Path:
    return tmp_path / "huey_data" / "huey.db"


@pytest.fixture
def storage(queue_path: Path) -> Iterator[Any]:
    found = open_storage(f"sqlite://{queue_path}", "teg-rpc")
    yield found
    found.close()


def pragma(storage: Any, name: str) -> Any:
    return storage.conn.execute(f"pragma {name}").fetchone()[0]


def test_the_queue_file_has_small_pages_and_wal_without_fsync_per_task(storage: Any) -> None:
    assert pragma(storage, "page_size") == 512
    assert pragma(storage, "journal_mode") == "wal"
    assert pragma(storage, "synchronous") == 1


def test_only_the_owner_may_read_the_queue(storage: Any, queue_path: Path) -> None:
    storage.enqueue(b"x")
    for path in queue_path.parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    assert queue_path.parent.stat().st_mode & 0o077 == 0


def test_priority_then_order_of_arrival(storage: Any) -> None:
    for data, priority in ((b"a", 0), (b"b", 0), (b"urgent", 100)):
        storage.enqueue(data, priority)
    assert [bytes(storage.dequeue()) for _ in range(3)] == [b"urgent", b"a", b"b"]
    assert storage.dequeue() is None


def test_lanes_in_one_file_are_queues_of_their_own(storage: Any, queue_path: Path) -> None:
    other = open_storage(f"sqlite://{queue_path}", "teg-work")
    storage.enqueue(b"mine")
    assert other.dequeue() is None
    assert other.queue_size() == 0
    other.close()


def test_another_connections_write_is_noticed_once(storage: Any, queue_path: Path) -> None:
    watch = WatchedFile(queue_path)
    assert not watch.written()
    storage.enqueue(b"x")
    assert watch.written()
    assert not watch.written()
    watch.close()


def test_a_removed_or_replaced_file_is_noticed(storage: Any, queue_path: Path) -> None:
    watch = WatchedFile(queue_path)
    assert not watch.replaced()
    queue_path.unlink()
    assert watch.replaced()
    queue_path.touch()
    assert watch.replaced()
    watch.close()


def test_a_held_file_is_weather_after_a_bounded_wait(storage: Any, queue_path: Path) -> None:
    with closing(sqlite3.connect(queue_path, isolation_level=None)) as holder:
        holder.execute("begin immediate")
        with pytest.raises(Unavailable, match="locked"), storage_errors(f"sqlite://{queue_path}"):
            storage.enqueue(b"x")
        holder.execute("rollback")
    storage.enqueue(b"x")
    assert storage.queue_size() == 1
    assert storage._timeout == LOCK_WAIT_S <= 5.0, "short enough for whoever enqueues"


@pytest.mark.parametrize("content", [b"no database at all, but long enough to look at" * 30, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_damaged(queue_path: Path, content: bytes) -> None:
    queue_path.parent.mkdir()
    queue_path.write_bytes(content)
    with pytest.raises(Damaged):
        open_storage(f"sqlite://{queue_path}", "teg-rpc")


def test_a_queue_file_that_cannot_be_opened_is_let_go_of(queue_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler tries twice a second: a connection kept each time would use up all file numbers."""
    queue_path.parent.mkdir()
    queue_path.write_bytes(b"no database at all, but long enough to look at" * 30)
    opened = noted_connections(monkeypatch)
    with pytest.raises(Damaged):
        open_storage(f"sqlite://{queue_path}", "teg-rpc")
    with pytest.raises(sqlite3.DatabaseError):
        WatchedFile(queue_path)
    assert len(opened) == 2
    assert_closed(opened)


def test_a_connection_is_let_go_of_when_its_last_pragma_or_first_look_fails(
    storage: Any, queue_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = noted_connections(monkeypatch)
    monkeypatch.setattr(QueueFile, "_set_journal_mode", lambda self, connection: connection.set_authorizer(deny))
    for name in ("synchronous", "data_version"):
        denied[:] = [name]
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            WatchedFile(queue_path)
    assert len(opened) == 2
    assert_closed(opened)


denied: list[str] = []


def deny(action: int, name: str | None, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_PRAGMA and name in denied else sqlite3.SQLITE_OK


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_IOERR_SHORT_READ, True),
        (sqlite3.SQLITE_IOERR_READ, True),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
        (sqlite3.SQLITE_IOERR_TRUNCATE, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_LOCKED, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_CANTOPEN, False),
    ],
)
def test_which_errors_are_damage(code: int, damage: bool) -> None:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = code
    with pytest.raises(Unavailable) as raised, storage_errors("sqlite:///data/huey.db"):
        raise error
    assert isinstance(raised.value, Damaged) is damage


def test_damage_is_moved_aside_together_and_only_the_last_one_is_kept(queue_path: Path) -> None:
    queue_path.parent.mkdir()
    old = queue_path.with_name("huey.db.damaged-20200101T000000")
    old.write_bytes(b"older")
    for suffix in ("", "-wal", "-shm"):
        queue_path.with_name(queue_path.name + suffix).write_text(suffix)
    aside = move_aside(queue_path)
    assert {path.name for path in queue_path.parent.iterdir()} == {aside.name + s for s in ("", "-wal", "-shm")}
    assert aside.with_name(aside.name + "-wal").read_text() == "-wal"


# --- by URL ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6379/0", "redis://host:6379/0"),
        ("redis://:s3@cr@host/0", "redis://host/0"),
        ("postgresql://u:secret@h/db?password=secret&x=1", "postgresql://h/db"),
        ("sqlite:///data/huey.db", "sqlite:///data/huey.db"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_the_path_of_a_queue_file() -> None:
    assert sqlite_path("sqlite:///data/huey.db") == Path("/data/huey.db")
    assert sqlite_path("redis://h") is None


@pytest.mark.parametrize(
    "url",
    [
        "mysql://h/db",
        "redis://h:port/0",
        "redis://h/0?socket_timeout=soon",
        "postgresql://h/db?nonsense=1",
        "postgres://[",
        "",
    ],
)
def test_a_url_that_can_never_work_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Refused, match="TEG_QUEUE_URL"):
        open_storage(url.replace("://", "://u:secret@", 1), "teg-rpc")


@pytest.mark.parametrize("missing", ["redis", "psycopg"])
def test_a_missing_library_is_wrong_configuration(missing: str) -> None:
    """A fresh interpreter in which the library cannot be imported."""
    url = {"redis": "redis://127.0.0.1:1/0", "psycopg": "postgresql://127.0.0.1:1/db"}[missing]
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from teg.domain.errors import Refused\n"
        "from tasks.storage import open_storage\n"
        f"try:\n    open_storage({url!r}, 'teg-rpc')\nexcept Refused as reason:\n    print(reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "TEG_QUEUE_URL" in done.stdout, done.stderr
    assert missing in done.stdout


def test_a_postgresql_that_is_away_is_weather() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        open_storage("postgresql://u:secret@127.0.0.1:1/db", "teg-rpc")


def test_a_redis_that_is_away_is_weather_and_costs_no_long_wait() -> None:
    storage = open_storage("redis://127.0.0.1:1/0", "teg-rpc")
    with pytest.raises(Unavailable) as raised, storage_errors("redis://u:secret@127.0.0.1:1/0"):
        storage.enqueue(b"x")
    assert "secret" not in str(raised.value)
    retry = storage.conn.connection_pool.connection_kwargs["retry"]  # type: ignore[attr-defined]
    assert retry._retries == 0
    assert retry._backoff.compute(1) == 0


def test_a_programming_error_is_not_weather() -> None:
    with pytest.raises(KeyError), storage_errors("sqlite:///x"):
        raise KeyError("ours")


# --- triggers ----------------------------------------------------------------------------------------------


def task(*args: Any, name: str = "publish_records", **kwargs: Any) -> Any:
    return SimpleNamespace(name=name, args=args, kwargs=kwargs)


def test_a_trigger_is_a_task_without_arguments() -> None:
    assert is_trigger(task())
    assert not is_trigger(task(1))
    assert not is_trigger(task(a=1))


def test_a_trigger_is_queued_until_a_worker_takes_it() -> None:
    known = Triggers()
    known.queued(task())
    assert known.is_queued(task())
    assert not known.is_queued(task(name="archive_records"))
    known.taken(task())
    assert not known.is_queued(task())


def test_one_retry_a_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(triggers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    known = Triggers()
    assert known.may_retry(task(), 30.0)
    assert not known.may_retry(task(), 30.0)
    assert known.may_retry(task(name="archive_records"), 30.0)
    assert known.may_retry(task(1), 30.0), "tasks with arguments are each their own"
    known.retry_came(task())
    assert known.may_retry(task(), 30.0)


def test_a_retry_lost_with_its_storage_does_not_end_retrying(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(triggers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    known = Triggers()
    assert known.may_retry(task(), 30.0)
    now[0] += 30.0 + triggers.LOST_AFTER_S - 1
    assert not known.may_retry(task(), 30.0)
    now[0] += 2
    assert known.may_retry(task(), 30.0)


# --- lanes -------------------------------------------------------------------------------------------------


def test_a_ring_before_the_wait_is_not_missed() -> None:
    wake_up = WakeUp()
    seen = wake_up.count(Lane.RPC)
    wake_up.notify(Lane.RPC)
    wake_up.wait(Lane.RPC, seen, 3600.0)  # would not return in time


def test_a_ring_wakes_its_own_lane_only() -> None:
    wake_up = WakeUp()
    seen = {lane: wake_up.count(lane) for lane in Lane}
    wake_up.notify(Lane.RPC)
    assert [lane for lane in Lane if wake_up.count(lane) != seen[lane]] == [Lane.RPC]
    wake_up.notify_all()
    assert all(wake_up.count(lane) != seen[lane] for lane in Lane)


def test_importing_the_gateway_touches_no_disk_and_no_network(tmp_path: Path) -> None:
    """`huey_consumer`, the console and the tests import it; only running it may open anything."""
    code = (
        "import sys\n"
        "touched = []\n"
        "def hook(event, args):\n"
        "    if event == 'sqlite3.connect' or event in ('socket.connect', 'socket.getaddrinfo'):\n"
        "        touched.append((event, str(args)))\n"
        "    if event == 'open' and isinstance(args[2], int) and args[2] & 3 and '__pycache__' not in str(args[0]):\n"
        "        touched.append((event, str(args)))\n"
        "    if event in ('os.mkdir', 'subprocess.Popen', 'os.rename', 'os.remove'):\n"
        "        touched.append((event, str(args)))\n"
        "sys.addaudithook(hook)\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import gateway, tasks.periodic\n"
        "print(touched)\n"
    )
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_queue_file_class_never_makes_huey_sleep() -> None:
    assert QueueFile.blocking
