"""gateway.db as a file: two kinds of errors, durability, and what happens to a damaged or a newer one."""

import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.gateway_db import connections as module
from teg.adapters.gateway_db import database as database_module
from teg.adapters.gateway_db import outbox, state
from teg.adapters.gateway_db.connections import Damaged
from teg.adapters.gateway_db.database import SCHEMA_VERSION, STOPPING_PATIENCE_S, WRITE_WAIT_S, Database
from teg.domain.errors import Refused, Unavailable

TABLE = ("CREATE TABLE IF NOT EXISTS thing (id INTEGER PRIMARY KEY, text TEXT)",)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path)
    database.open(TABLE)
    yield database
    database.close()


def put(database: Database, text: str, durable: bool = True) -> None:
    with database.transaction(durable) as connection:
        connection.execute("INSERT INTO thing (text) VALUES (?)", (text,))


def things(database: Database) -> list[str]:
    return [text for (text,) in database.rows("SELECT text FROM thing ORDER BY id")]


def pragma(database: Database, name: str) -> object:
    return database.rows(f"PRAGMA {name}")[0][0]


def test_only_we_may_read_it(database: Database, path: Path) -> None:
    put(database, "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.with_name("gateway.db-wal").stat().st_mode) == 0o600


def test_an_accepted_transaction_is_fsynced(database: Database) -> None:
    assert (pragma(database, "journal_mode"), pragma(database, "synchronous")) == ("wal", 2)


def test_a_mark_is_not_fsynced_but_the_next_transaction_is_again(database: Database) -> None:
    with database.transaction(durable=False) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    assert pragma(database, "synchronous") == 2
    with pytest.raises(ZeroDivisionError), database.transaction(durable=False):
        raise ZeroDivisionError
    assert pragma(database, "synchronous") == 2


def test_every_thread_has_the_same_settings(database: Database) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(pragma(database, "synchronous")))
    thread.start()
    thread.join()
    assert found == [2]


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        connection.execute("INSERT INTO thing (text) VALUES ('a')")
        raise ZeroDivisionError
    assert things(database) == []
    put(database, "b")
    assert things(database) == ["b"]


def test_a_locked_file_is_transient(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRAGMAS", (*module.PRAGMAS, "PRAGMA busy_timeout=50"))
    database = Database(path)
    database.open(TABLE)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked") as error:
        put(database, "a")
    assert not isinstance(error.value, Damaged)
    other.execute("ROLLBACK")
    other.close()
    put(database, "a")
    assert things(database) == ["a"]
    database.close()


def test_a_full_disk_is_transient_and_is_over_when_there_is_room(database: Database) -> None:
    database.rows(f"PRAGMA max_page_count={pragma(database, 'page_count')}")
    with pytest.raises(Unavailable, match="full"):
        put(database, "x" * 100_000)
    database.rows("PRAGMA max_page_count=100000")
    put(database, "x" * 100_000)
    assert len(things(database)) == 1


def test_an_unwritable_place_is_transient(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="file"):
        Database(tmp_path / "file" / "gateway.db").open(TABLE)


def test_a_mistake_of_ours_is_not_transient(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        database.rows("SELECT * FROM missing")
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as connection:
        connection.executemany("INSERT INTO thing (id) VALUES (?)", [(1,), (1,)])
    assert things(database) == []


@pytest.mark.parametrize(
    "content", [b"this is no database at all, not even by its first bytes", b"SQLite format 3\0" * 300]
)
def test_what_is_no_database_is_kept_aside_and_work_begins_anew(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    database = Database(path)
    database.open(TABLE)
    put(database, "a")
    assert things(database) == ["a"]
    database.close()
    [kept] = (path.parent / "quarantine").glob("*/gateway.db")
    assert kept.read_bytes() == content
    assert "is damaged" in caplog.text
    assert str(kept.parent) in caplog.text


def test_the_write_ahead_log_goes_aside_with_the_damaged_file(path: Path) -> None:
    """Left behind, it would be replayed into the new file."""
    database = Database(path)
    database.open(TABLE)
    put(database, "a")
    log = path.with_name("gateway.db-wal")
    content = log.read_bytes()
    database.close()
    path.write_bytes(b"\xff" * 8192)
    log.write_bytes(content[:1000])
    database = Database(path)
    database.open(TABLE)
    assert things(database) == []
    database.close()
    [folder] = (path.parent / "quarantine").iterdir()
    assert (folder / "gateway.db").read_bytes() == b"\xff" * 8192
    assert (folder / "gateway.db-wal").read_bytes() == content[:1000]
    assert list(path.parent.glob("*kept*")) == []


def test_a_torn_write_ahead_log_is_no_damage(path: Path) -> None:
    """What a power cut leaves: SQLite takes the valid beginning and drops the rest."""
    database = Database(path)
    database.open(TABLE)
    for number in range(50):
        put(database, str(number))
    wal = path.with_name("gateway.db-wal").read_bytes()
    main = path.read_bytes()
    database.close()
    path.write_bytes(main)
    path.with_name("gateway.db-wal").write_bytes(wal[: len(wal) * 2 // 3])
    database = Database(path)
    database.open(TABLE)
    kept = things(database)
    assert kept == [str(number) for number in range(len(kept))]
    assert 0 < len(kept) < 50
    assert not (path.parent / "quarantine").exists()
    database.close()


def test_a_file_of_a_newer_gateway_is_refused_and_left_untouched(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE future (x)")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()
    database = Database(path)
    with pytest.raises(Refused, match=f"has schema {SCHEMA_VERSION + 1}, this gateway knows {SCHEMA_VERSION}"):
        database.open(TABLE)
    database.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("future",)]
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    connection.close()
    assert not (path.parent / "quarantine").exists()


def test_opening_again_keeps_everything(path: Path) -> None:
    for number in range(3):
        database = Database(path)
        database.open(TABLE, outbox.SCHEMA, state.SCHEMA)
        put(database, str(number))
        database.close()
    database = Database(path, read_only=True)
    assert things(database) == ["0", "1", "2"]
    database.close()


def test_a_checkpoint_shrinks_the_log(database: Database, path: Path) -> None:
    put(database, "x" * 1_000_000)
    assert path.with_name("gateway.db-wal").stat().st_size > 1_000_000
    database.checkpoint()
    assert path.with_name("gateway.db-wal").stat().st_size == 0
    assert database.size_bytes() > 1_000_000
    with database.transaction() as connection:
        connection.execute("DELETE FROM thing")
    assert database.size_bytes() < 100_000


def test_before_it_is_opened_it_is_not_available(path: Path) -> None:
    """A thread that looked into a file that was not looked through would trust it."""
    database = Database(path)
    with pytest.raises(Unavailable, match="not available yet"):
        things(database)
    assert not path.exists()


def test_during_a_stop_nobody_waits_long_for_a_lock(database: Database) -> None:
    """Also a thread that had its connection before."""
    put(database, "before")
    assert database.rows("PRAGMA busy_timeout") == [(WRITE_WAIT_S * 1000,)]
    database.stop_waiting()
    put(database, "after")
    assert database.rows("PRAGMA busy_timeout") == [(STOPPING_PATIENCE_S * 1000,)]


def test_a_thread_that_comes_later_writes_nothing_into_a_file_in_use(
    path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection would move a long write-ahead log into the file, and that would be taken for somebody else's."""
    monkeypatch.setattr(database_module, "CHECKPOINT_PAGES", 1 << 30)
    for number in range(30):
        put(database, "x" * 100_000 + str(number))
    files = {file.name: file.stat().st_size for file in path.parent.iterdir()}
    assert files["gateway.db-wal"] > 1000 * 1024
    other = threading.Thread(target=lambda: things(database))
    other.start()
    other.join()
    assert {file.name: file.stat().st_size for file in path.parent.iterdir()} == files
    database.verify()
    assert len(things(database)) == 30
