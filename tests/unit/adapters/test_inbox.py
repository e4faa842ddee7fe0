"""The inbox file: trusted in nothing, never blocked for long, and watched without polling."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from producers.controller_feed import ControllerFeed
from teg.adapters.inbox import mailbox as module
from teg.adapters.inbox.changes import InboxChanges
from teg.adapters.inbox.mailbox import Inbox
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ingest import Replaced
from tests.support.running import ControllerInbox, assert_closed, message, noted_connections, wait_until


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[ControllerInbox]:
    controller = ControllerInbox(tmp_path / "communication_queue.db")
    yield controller
    controller.close()


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    inbox = Inbox(tmp_path / "communication_queue.db")
    yield inbox
    inbox.close()


def read(inbox: Inbox, after_id: int = 0) -> list[int]:
    return [row_id for row_id, _, _ in inbox.read(after_id, 100_000, 1 << 40)]


def test_text_and_blobs_are_told_apart(controller: ControllerInbox, inbox: Inbox) -> None:
    for value in ("text", b"blob", None, 7):
        controller.insert(value)
    # The column's TEXT affinity turns numbers into text.
    values = [value for _, _, value in inbox.read(0, 10, 1000)]
    assert values == [bytearray(b"text"), b"blob", None, bytearray(b"7")]
    assert [type(value) for value in values[:2]] == [bytearray, bytes]


def test_reading_is_bounded_by_rows_and_bytes_but_never_to_nothing(controller: ControllerInbox, inbox: Inbox) -> None:
    controller.insert_many(message(number) for number in range(10))
    assert [row[0] for row in inbox.read(0, 3, 1 << 30)] == [1, 2, 3]
    assert [row[0] for row in inbox.read(3, 100, 1)] == [4]
    assert inbox.read(10, 100, 1 << 30) == []


def test_there_may_be_no_inbox_yet(inbox: Inbox, tmp_path: Path) -> None:
    assert (inbox.read(0, 10, 1000), inbox.has_rows(), inbox.last_heartbeat_ms()) == ([], False, None)
    assert list(tmp_path.iterdir()) == []  # and we never make one
    controller = ControllerInbox(tmp_path / "communication_queue.db")
    assert not inbox.has_rows()
    controller.insert("x")
    assert inbox.has_rows()
    controller.close()


def test_an_empty_database_has_no_rows(inbox: Inbox, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "communication_queue.db").close()
    assert (inbox.read(0, 10, 1000), inbox.has_rows(), inbox.last_heartbeat_ms()) == ([], False, None)


def test_exactly_the_named_rows_are_removed(controller: ControllerInbox, inbox: Inbox) -> None:
    controller.insert_many(message(number) for number in range(1000))
    ids = [row_id for row_id in read(inbox) if row_id % 7]
    inbox.delete(ids)
    assert read(inbox) == [row_id for row_id in range(1, 1001) if not row_id % 7]
    inbox.delete(read(inbox))
    assert controller.count() == 0


def test_rows_that_were_not_named_stay_even_between_named_ones(controller: ControllerInbox, inbox: Inbox) -> None:
    controller.insert_many(message(number) for number in range(10))
    inbox.delete([row_id for row_id in read(inbox) if row_id != 5])
    assert read(inbox) == [5]


def test_rows_are_known_by_rowid_whatever_the_controller_calls_id(inbox: Inbox, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "communication_queue.db")
    connection.execute("CREATE TABLE messages (id TEXT, type TEXT, message TEXT)")
    connection.executemany("INSERT INTO messages VALUES ('same', 'm', ?)", [("a",), ("b",)])
    connection.commit()
    assert [(row[0], row[2]) for row in inbox.read(0, 10, 1000)] == [(1, bytearray(b"a")), (2, bytearray(b"b"))]
    inbox.delete([1, 2])
    assert not inbox.has_rows()
    connection.close()


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE TRIGGER evil AFTER DELETE ON messages BEGIN DELETE FROM health_check; END",
        "CREATE TRIGGER evil BEFORE DELETE ON MESSAGES BEGIN SELECT RAISE(ABORT, 'no'); END",
        "ALTER TABLE messages RENAME TO other; CREATE VIEW messages AS SELECT * FROM other",
    ],
)
def test_triggers_and_views_are_not_touched(controller: ControllerInbox, inbox: Inbox, planted: str) -> None:
    controller.insert(message(1))
    read(inbox)
    controller.connection.executescript(planted)
    with pytest.raises(Unavailable, match="view or carries a trigger"):
        inbox.delete([1])
    with pytest.raises(Unavailable, match="view or carries a trigger"):
        inbox.read(0, 10, 1000)
    assert controller.count() == 1


@pytest.mark.parametrize("content", [b"no database, but some text that is longer than a header", b"\0" * 5000])
def test_what_is_no_database_is_said_and_left_alone(inbox: Inbox, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "communication_queue.db"
    path.write_bytes(content)
    with pytest.raises(Unavailable, match=r"communication_queue.db: file is not a database"):
        inbox.read(0, 10, 1000)
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_opened_is_let_go_of_at_each_try(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again for as long as it lies there: a connection kept each time would use up all file numbers."""
    (tmp_path / "communication_queue.db").write_bytes(b"no database, but some text that is longer than a header")
    opened = noted_connections(monkeypatch)
    for _ in range(3):
        with pytest.raises(Unavailable):
            inbox.has_rows()
    assert len(opened) == 3
    assert_closed(opened)


def test_a_table_without_our_columns_is_said(inbox: Inbox, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "communication_queue.db")
    connection.execute("CREATE TABLE messages (a, b)")
    connection.execute("INSERT INTO messages VALUES (1, 2)")
    connection.commit()
    connection.close()
    with pytest.raises(Unavailable, match="no such column: type"):
        inbox.read(0, 10, 1000)


def test_a_directory_in_its_place_is_weather(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "communication_queue.db").mkdir()
    with pytest.raises(Unavailable):
        inbox.has_rows()


def test_a_place_that_cannot_be_looked_at_is_weather(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="Not a directory"):
        Inbox(tmp_path / "file" / "communication_queue.db").has_rows()


def test_a_lock_is_weather_and_reading_goes_on(
    controller: ControllerInbox, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.insert(message(1))
    assert read(inbox) == [1]
    assert inbox._connection is not None
    inbox._connection.execute("PRAGMA busy_timeout=20")
    controller.connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        inbox.delete([1])
    assert read(inbox) == [1]
    controller.connection.execute("COMMIT")
    inbox.delete([1])
    assert read(inbox) == []


def test_a_replaced_file_keeps_its_rows(controller: ControllerInbox, inbox: Inbox, tmp_path: Path) -> None:
    controller.insert(message(1))
    assert read(inbox) == [1]
    controller.close()
    for path in tmp_path.iterdir():
        path.unlink()
    second = ControllerInbox(controller.path)
    second.insert(message(2))
    with pytest.raises(Replaced):
        inbox.delete([1])
    assert second.count() == 1
    assert [bytes(row[2]) for row in inbox.read(0, 10, 1000)] == [message(2).encode()]
    second.close()


def test_a_removed_file_is_noticed(controller: ControllerInbox, inbox: Inbox, tmp_path: Path) -> None:
    controller.insert(message(1))
    assert inbox.has_rows()
    controller.close()
    for path in tmp_path.iterdir():
        path.unlink()
    assert not inbox.has_rows()
    with pytest.raises(Replaced):
        inbox.delete([1])


@pytest.mark.parametrize(("stored", "expected"), [(1_767_225_600_123, 1_767_225_600_123), ("soon", None), (None, None)])
def test_the_heartbeat_is_a_number_or_nothing(
    controller: ControllerInbox, inbox: Inbox, stored: object, expected: int | None
) -> None:
    controller.connection.execute("INSERT INTO health_check (id, timestamp_ms) VALUES (1, ?)", (stored,))
    assert inbox.last_heartbeat_ms() == expected


# --- the write lock


def test_chunks_follow_the_measured_lock_time(
    controller: ControllerInbox, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.insert_many(message(number) for number in range(5000))
    sizes: list[int] = []
    original = module._delete_chunk

    def delete_chunk(connection: sqlite3.Connection, ids: list[int]) -> float:
        original(connection, ids)
        sizes.append(len(ids))
        return 0.0001 * len(ids)  # a medium that takes 0.1 ms a row

    monkeypatch.setattr(module, "_delete_chunk", delete_chunk)
    inbox.delete(read(inbox))
    assert sum(sizes) == 5000
    assert sizes[0] == 250  # 25 ms: too long
    assert all(size * 0.0001 <= module.AIM_S for size in sizes[1:])
    sizes.clear()

    def crawl(connection: sqlite3.Connection, ids: list[int]) -> float:
        sizes.append(len(ids))
        return 1.0

    monkeypatch.setattr(module, "_delete_chunk", crawl)
    inbox.delete(list(range(1, 2000)))
    assert sizes[-1] == 1  # a medium that takes a second a transaction


def test_the_controller_gets_its_turn_between_chunks(controller: ControllerInbox, inbox: Inbox) -> None:
    """Each chunk is a transaction of its own: a controller with no patience at all gets through."""
    controller.insert_many(message(number) for number in range(20_000))
    controller.connection.execute("PRAGMA busy_timeout=1000")
    ids = read(inbox)

    def delete() -> None:
        """As the recorder does it: a lock that a busy controller keeps taking is weather."""
        while True:
            with suppress(Unavailable):
                return inbox.delete(ids)

    thread = threading.Thread(target=delete)
    thread.start()
    inserted = 0
    while thread.is_alive():
        controller.insert("x")
        inserted += 1
    thread.join()
    assert controller.count() == inserted


# --- noticing


def test_a_write_is_noticed_at_once(controller: ControllerInbox) -> None:
    changes = InboxChanges(controller.path)
    assert changes.wait(5.0)  # the first watch: something may have been written before
    noticed = threading.Event()

    def watch() -> None:
        if changes.wait(30.0):
            noticed.set()

    thread = threading.Thread(target=watch)
    thread.start()
    controller.insert(message(1))
    assert noticed.wait(10)
    thread.join()
    changes.close()


def test_other_files_of_the_directory_are_no_change(controller: ControllerInbox) -> None:
    changes = InboxChanges(controller.path)
    changes.wait(0.0)
    (controller.path.parent / "other.txt").write_text("x")
    assert not changes.wait(0.05)
    changes.close()


def test_a_directory_that_appears_and_one_that_is_replaced_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    changes = InboxChanges(folder / "communication_queue.db")
    assert not changes.wait(0.01)
    for _ in range(2):
        folder.mkdir()
        assert changes.wait(1.0)
        (folder / "communication_queue.db").write_text("x")
        assert changes.wait(10.0)
        (folder / "communication_queue.db").unlink()
        folder.rmdir()
        wait_until(lambda: changes.wait(0.1) or changes._inotify is None, 10, "the end of the watch")
        while changes._inotify is not None:
            changes.wait(0.1)
    changes.close()


def test_the_log_of_a_controller_that_never_checkpoints_is_moved_into_the_file(
    controller: ControllerInbox, inbox: Inbox
) -> None:
    """SQLite starts a log anew once all of it has been moved: it cannot grow for ever."""
    controller.connection.execute("PRAGMA wal_autocheckpoint=0")
    controller.insert_many("x" * 1000 for _ in range(6000))
    log = controller.path.with_name(controller.path.name + "-wal")
    assert log.stat().st_size > 5_000_000
    assert controller.path.stat().st_size < 1_000_000
    inbox.delete([row[0] for row in inbox.read(0, 100, 1 << 20)])
    assert controller.path.stat().st_size > 5_000_000
    before = log.stat().st_size
    controller.insert_many("x" * 1000 for _ in range(1000))
    assert log.stat().st_size == before


class Rows:
    """An inbox that fails as told."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)

    def has_rows(self) -> bool:
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return bool(outcome)


class Changes:
    def wait(self, timeout_s: float) -> bool:
        time.sleep(0.001)
        return True


def test_trouble_is_said_once_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.controller_feed.RETRY_S", 0.001)
    caplog.set_level("INFO")
    locked = Unavailable("database is locked")
    rung = threading.Event()
    feed = ControllerFeed(Changes(), Rows(locked, locked, locked, KeyError("a bug"), locked, True), rung.set)
    feed.start()
    assert rung.wait(10)
    feed.stop()
    feed._thread.join(10)
    said = [record.getMessage() for record in caplog.records]
    assert said.count("the inbox cannot be read now: database is locked") == 1
    assert said.count("the inbox can be read again") == 1
    assert said.count("the inbox cannot be watched now; trying again") == 1
