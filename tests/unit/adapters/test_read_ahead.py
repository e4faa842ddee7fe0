"""What is read ahead is what would be read: never another file's rows, never past rows that came to lie before it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.inbox import wire
from teg.adapters.inbox.mailbox import Inbox
from teg.adapters.inbox.queue_file import QueueFile
from teg.adapters.inbox.read_ahead import ReadAhead
from teg.adapters.inbox.wire import Answer, Op
from teg.domain.telemetry.ingest import Replaced
from teg.domain.telemetry.validation import Record
from tests.support.running import ControllerInbox, message


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[ControllerInbox]:
    controller = ControllerInbox(tmp_path / "communication_queue.db")
    controller.insert_many(message(number) for number in range(1, 41))
    yield controller
    controller.close()


@pytest.fixture
def inbox(controller: ControllerInbox) -> Iterator[Inbox]:
    inbox = Inbox(controller.path)
    yield inbox
    inbox.close()


def read(inbox: Inbox, after_id: int | None = None, rows: int = 10) -> list[int]:
    return list(inbox.read(after_id, rows, 1 << 20).rows.ids)


def test_a_backlog_is_met_whole_and_in_order(controller: ControllerInbox, inbox: Inbox) -> None:
    met: list[int] = []
    while (rows := inbox.read(None, 10, 1 << 20).rows).ids:
        met += rows.ids
        inbox.delete(rows)
    assert met == list(range(1, 41))
    assert controller.count() == 0


def test_rows_that_come_to_lie_before_it_are_not_passed(controller: ControllerInbox, inbox: Inbox) -> None:
    rows = inbox.read(None, 10, 1 << 20).rows
    inbox.delete(rows)
    controller.connection.execute("INSERT INTO messages (id, type, message) VALUES (3, 'm', ?)", (message(3),))
    assert read(inbox) == [3, *range(11, 20)]


def test_a_row_that_changed_since_is_not_deleted(controller: ControllerInbox, inbox: Inbox) -> None:
    read(inbox)
    assert not inbox.trouble
    inbox.last_heartbeat_ms()  # the answer comes after what was read ahead
    controller.connection.execute("UPDATE messages SET message = ? WHERE id = 15", (message(99),))
    batch = inbox.read(10, 10, 1 << 20)
    try:
        inbox.delete(batch.rows)
    except Replaced:  # it was read ahead; on a busy machine the reader did not come to that, and reads it as it is now
        assert controller.count() == 40
        batch = inbox.read(10, 10, 1 << 20)
        inbox.delete(batch.rows)
    assert message(99) in [record.message for record in batch.records], "nothing is deleted that was not met"
    assert controller.count() == 30


@pytest.mark.parametrize(("after_id", "rows"), [(None, 10), (5, 10), (10, 5), (20, 10), (38, 10)])
def test_another_question_gets_its_own_answer(inbox: Inbox, after_id: int | None, rows: int) -> None:
    read(inbox)
    first = 1 if after_id is None else after_id + 1
    assert read(inbox, after_id, rows) == list(range(first, min(41, first + rows)))


def test_another_file_is_not_answered_with_the_rows_of_the_first(controller: ControllerInbox, inbox: Inbox) -> None:
    read(inbox)
    controller.close()
    for path in controller.path.parent.iterdir():
        path.unlink()
    second = ControllerInbox(controller.path)
    second.insert_many(message(number) for number in range(101, 131))
    batch = inbox.read(10, 10, 1 << 20)
    assert [record.message for record in batch.records] == [message(number) for number in range(111, 121)]
    second.close()


def test_a_batch_that_its_bytes_have_ended_is_read_ahead_of_too() -> None:
    """Long messages: they fill a batch long before its number of rows does."""
    record = Record(1, 1_767_225_600_000, 1, "x" * 500, None, False)
    reply = bytes([Answer.DONE]) + wire.encode_batch([(bytearray(b"x" * 500), record)] * 4, 2000)
    ahead = ReadAhead(QueueFile("none.db"), lambda _, __: reply)
    ahead.answer(wire.encode_request(Op.READ, 0, 1, 100, 2000))
    assert ahead.wanted
    ahead.answer(wire.encode_request(Op.READ, 0, 1, 100, 4000))
    assert not ahead.wanted, "the rest has been read"
