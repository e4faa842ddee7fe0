"""The queue file: private, small, held, removed or damaged; and the storage that a URL chooses."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tasks.storage import (
    LOCK_WAIT_S,
    Damaged,
    QueueFile,
    WatchedFile,
    move_aside,
    open_storage,
    sqlite_path,
    storage_errors,
    without_password,
)
from teg.domain.errors import Refused, Unavailable
from tests.support.running import assert_closed, noted_connections

ROOT = Path(__file__).resolve().parents[3]

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


def test_a_held_file_is_transient_after_a_bounded_wait(storage: Any, queue_path: Path) -> None:
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


def test_a_postgresql_that_is_away_is_transient() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        open_storage("postgresql://u:secret@127.0.0.1:1/db", "teg-rpc")


def test_a_redis_that_is_away_is_transient_and_costs_no_long_wait() -> None:
    storage = open_storage("redis://127.0.0.1:1/0", "teg-rpc")
    with pytest.raises(Unavailable) as raised, storage_errors("redis://u:secret@127.0.0.1:1/0"):
        storage.enqueue(b"x")
    assert "secret" not in str(raised.value)
    retry = storage.conn.connection_pool.connection_kwargs["retry"]  # type: ignore[attr-defined]
    assert retry._retries == 0
    assert retry._backoff.compute(1) == 0


def test_a_programming_error_is_not_transient() -> None:
    with pytest.raises(KeyError), storage_errors("sqlite:///x"):
        raise KeyError("ours")
