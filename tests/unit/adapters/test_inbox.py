"""The inbox file: trusted in nothing, never blocked for long, and watched without polling."""

import sqlite3
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from producers.controller_feed import ControllerFeed
from teg.adapters.inbox import mailbox as module
from teg.adapters.inbox import wire
from teg.adapters.inbox.changes import InboxChanges
from teg.adapters.inbox.mailbox import Inbox
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ingest import Replaced, RowsRead
from tests.support.running import ControllerInbox, message, wait_until
from tests.support.threads import runs


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


def read(inbox: Inbox) -> RowsRead:
    return inbox.read(None, 100_000, 1 << 30).rows


def ids(inbox: Inbox) -> list[int]:
    return list(read(inbox).ids)


def test_text_and_blobs_are_told_apart(controller: ControllerInbox, inbox: Inbox) -> None:
    for value in ("text", b"blob", None, 7):
        controller.insert(value)
    # The column's TEXT affinity turns numbers into text.
    aside = inbox.read(None, 10, 1000).set_aside
    assert [dead.message for dead in aside] == [b"text", b"blob", b"", b"7"]
    reasons = ("message is not JSON", "message is a BLOB", "message is NULL", "message is a JSON int")
    assert all(dead.reason.startswith(reason) for dead, reason in zip(aside, reasons, strict=True))


def test_reading_is_bounded_by_rows_and_bytes_but_never_to_nothing(controller: ControllerInbox, inbox: Inbox) -> None:
    controller.insert_many(message(number) for number in range(10))
    assert inbox.read(None, 3, 1 << 30).rows.ids == [1, 2, 3]
    assert inbox.read(3, 100, 1).rows.ids == [4]
    assert inbox.read(10, 100, 1 << 30).rows.ids == []


@pytest.mark.parametrize("first", [-(2**63), -5, 0, 2**63 - 3])
def test_a_row_may_have_any_number(controller: ControllerInbox, inbox: Inbox, first: int) -> None:
    """`id` is the controller's to choose; a row that was never read would lie there for ever, and nobody be told."""
    for number in range(3):
        controller.connection.execute(
            "INSERT INTO messages (id, type, message) VALUES (?, 'm', ?)", (first + number, message(number))
        )
    batch = inbox.read(None, 2, 1 << 20)
    rest = inbox.read(batch.rows.ids[-1], 10, 1 << 20)
    assert [*batch.rows.ids, *rest.rows.ids] == [first, first + 1, first + 2]
    assert inbox.read(first + 2, 10, 1 << 20).rows.ids == []
    for rows in (batch.rows, rest.rows):
        inbox.delete(rows)
    assert controller.count() == 0


def test_there_may_be_no_inbox_yet(inbox: Inbox, tmp_path: Path) -> None:
    assert (ids(inbox), inbox.has_rows(), inbox.last_heartbeat_ms()) == ([], False, None)
    assert list(tmp_path.iterdir()) == []  # and we never make one
    controller = ControllerInbox(tmp_path / "communication_queue.db")
    assert not inbox.has_rows()
    controller.insert("x")
    assert inbox.has_rows()
    controller.close()


def test_an_empty_database_has_no_rows(inbox: Inbox, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "communication_queue.db").close()
    assert (ids(inbox), inbox.has_rows(), inbox.last_heartbeat_ms()) == ([], False, None)


def test_exactly_the_named_rows_are_removed(controller: ControllerInbox, inbox: Inbox) -> None:
    controller.insert_many(message(number) for number in range(1000))
    rows = read(inbox)
    inbox.delete(rows.only([row_id for row_id in rows.ids if row_id % 7]))
    assert ids(inbox) == [row_id for row_id in range(1, 1001) if not row_id % 7]
    inbox.delete(read(inbox))
    assert controller.count() == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE messages SET message = 'other' WHERE id = 5",
        "INSERT OR REPLACE INTO messages (id, type, message) VALUES (5, 'm', 'other')",
        "DROP TABLE messages; CREATE TABLE messages (id INTEGER PRIMARY KEY, type, message);"
        " INSERT INTO messages VALUES (5, 'm', 'other')",
    ],
)
@pytest.mark.parametrize("dense", [True, False])
def test_a_row_that_holds_something_else_by_now_stays(
    controller: ControllerInbox, inbox: Inbox, change: str, dense: bool
) -> None:
    """The same file and the same id are not the same row: only what was read, and archived, may go."""
    controller.insert_many(message(number) for number in range(10))
    rows = read(inbox)
    controller.connection.executescript(change)
    left = controller.count()
    with pytest.raises(Replaced):
        inbox.delete(rows if dense else rows.only([1, 3, 5]))
    assert controller.count() == left
    inbox.delete(read(inbox))
    assert controller.count() == 0


def test_a_row_that_is_gone_by_now_is_no_obstacle(controller: ControllerInbox, inbox: Inbox) -> None:
    controller.insert_many(message(number) for number in range(10))
    rows = read(inbox)
    controller.connection.execute("DELETE FROM messages WHERE id IN (1, 4)")
    controller.insert(message(11))
    inbox.delete(rows)
    assert ids(inbox) == [11]


def test_a_row_over_every_limit_is_known_again_when_it_is_deleted(controller: ControllerInbox, inbox: Inbox) -> None:
    for text in (message(1), "x" * 5_000_000, b"y" * 3_000_000, message(2)):
        controller.insert(text)
    controller.insert(message(3), row_type="t" * 3_000_000)
    while (rows := read(inbox)).ids:
        inbox.delete(rows)
    assert controller.count() == 0


def test_rows_are_known_by_rowid_whatever_the_controller_calls_id(inbox: Inbox, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "communication_queue.db")
    connection.execute("CREATE TABLE messages (id TEXT, type TEXT, message TEXT)")
    connection.executemany("INSERT INTO messages VALUES ('same', 'm', ?)", [("a",), ("b",)])
    connection.commit()
    assert [(dead.source_row, dead.message) for dead in inbox.read(None, 10, 1000).set_aside] == [(1, b"a"), (2, b"b")]
    inbox.delete(read(inbox))
    assert not inbox.has_rows()
    connection.close()


@pytest.mark.parametrize("content", [b"no database, but some text that is longer than a header", b"\0" * 5000])
def test_what_is_no_database_is_said_and_left_alone(inbox: Inbox, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "communication_queue.db"
    path.write_bytes(content)
    with pytest.raises(Unavailable, match=r"communication_queue.db: file is not a database"):
        read(inbox)
    assert path.read_bytes() == content


def test_a_directory_in_its_place_is_transient(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "communication_queue.db").mkdir()
    with pytest.raises(Unavailable):
        inbox.has_rows()


def test_a_place_that_cannot_be_looked_at_is_transient(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="Not a directory"):
        Inbox(tmp_path / "file" / "communication_queue.db").has_rows()


def test_a_lock_is_transient_and_reading_goes_on(controller: ControllerInbox, inbox: Inbox) -> None:
    controller.insert(message(1))
    rows = read(inbox)
    controller.connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        inbox.delete(rows)
    assert ids(inbox) == [1]
    assert inbox.trouble == ""
    controller.connection.execute("COMMIT")
    inbox.delete(rows)
    assert ids(inbox) == []


def recreate(controller: ControllerInbox) -> ControllerInbox:
    controller.close()
    for path in controller.path.parent.iterdir():
        path.unlink()
    return ControllerInbox(controller.path)


def test_a_replaced_file_keeps_its_rows_also_when_it_was_read_meanwhile(
    controller: ControllerInbox, inbox: Inbox
) -> None:
    """The generation belongs to the rows that were read, not to the last read."""
    controller.insert(message(1))
    old = read(inbox)
    second = recreate(controller)
    second.insert(message(2))
    with pytest.raises(Replaced):
        inbox.delete(old)
    new = read(inbox)
    assert new.generation != old.generation
    with pytest.raises(Replaced):
        inbox.delete(old)
    assert second.count() == 1
    inbox.delete(new)
    assert second.count() == 0
    second.close()


def test_a_removed_file_is_noticed(controller: ControllerInbox, inbox: Inbox, tmp_path: Path) -> None:
    controller.insert(message(1))
    rows = read(inbox)
    controller.close()
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(Replaced):
        inbox.delete(rows)
    assert not inbox.has_rows()


def test_another_directory_under_the_name_is_noticed(tmp_path: Path) -> None:
    place = tmp_path / "controller"
    first = ControllerInbox(place / "communication_queue.db")
    inbox = Inbox(first.path)
    first.insert(message(1))
    assert ids(inbox) == [1]
    place.rename(tmp_path / "old")
    assert ids(inbox) == []
    second = ControllerInbox(place / "communication_queue.db")
    second.insert_many([message(1), message(2)])
    assert ids(inbox) == [1, 2]
    for one in (inbox, first, second):
        one.close()


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
    sizes: list[int] = []
    per_row_s = 0.0001  # a medium that takes 0.1 ms a row

    def ask(request: bytes, **_: object) -> tuple[int, bytes]:
        sizes.append(len(wire.decode_rows(wire.decode_request(request)[-1])[0]))
        return 1, struct.pack("<d", per_row_s * sizes[-1])

    monkeypatch.setattr(inbox._file, "ask", ask)
    rows = RowsRead(1, range(1, 5001), [b"m" * 16] * 5000)
    inbox.delete(rows)
    assert sum(sizes) == 5000
    assert sizes[0] == 250  # 25 ms: too long
    assert all(size * 0.0001 <= module.AIM_S for size in sizes[1:])
    sizes.clear()
    per_row_s = 1.0
    inbox.delete(rows)
    assert sizes[-1] == 1  # a medium that takes a second a transaction


def test_the_controller_gets_its_turn_between_chunks(controller: ControllerInbox, inbox: Inbox) -> None:
    """Each chunk is a transaction of its own: a controller with no patience at all gets through."""
    controller.insert_many(message(number) for number in range(20_000))
    controller.connection.execute("PRAGMA busy_timeout=1000")
    rows = read(inbox)

    def delete() -> None:
        """As the recorder does it: a lock that a busy controller keeps taking is a transient failure."""
        while True:
            with suppress(Unavailable):
                return inbox.delete(rows)

    thread = threading.Thread(target=delete)
    thread.start()
    inserted = 0
    while thread.is_alive():
        controller.insert("x")
        inserted += 1
    thread.join()
    assert controller.count() == 20_000 - len(rows.ids) + inserted


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
    told = threading.Event()
    feed = ControllerFeed(Changes(), Rows(locked, locked, locked, KeyError("a bug"), locked, True), told.set)
    feed.start()
    assert told.wait(10)
    feed.stop()
    wait_until(lambda: not runs("controller-feed"), 10, "its thread has ended")
    said = [record.getMessage() for record in caplog.records]
    assert said.count("the inbox cannot be read now: database is locked") == 1
    assert said.count("the inbox can be read again") == 1
    assert said.count("the inbox cannot be watched now; trying again") == 1
