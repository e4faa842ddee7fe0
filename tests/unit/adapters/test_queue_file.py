"""The reader's own side of the file, in this process: rows as they are, and the log that is kept small."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.inbox import queue_file as module
from teg.adapters.inbox import wire
from teg.adapters.inbox.queue_file import QueueFile, Replaced
from teg.domain.telemetry.validation import Oversized
from tests.support.ingest import texts
from tests.support.running import ControllerInbox, message


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[ControllerInbox]:
    controller = ControllerInbox(tmp_path / "communication_queue.db")
    yield controller
    controller.close()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueFile]:
    monkeypatch.setattr("teg.adapters.inbox.hostile_file.check_descriptors", lambda *_: None)  # ours are many
    monkeypatch.chdir(tmp_path)
    file = QueueFile("communication_queue.db")
    yield file
    file.close()


def rows(file: QueueFile) -> list[tuple[Any, ...]]:
    return list(file.rows("messages", wire.MIN_ID, 100_000))


def delete(file: QueueFile, *ids: int) -> None:
    held = {row[0]: wire.row_mark(row) for row in rows(file)}
    file.delete("messages", ids, [held[row_id] for row_id in ids], wire.row_mark)


def test_text_and_blobs_are_told_apart(controller: ControllerInbox, file: QueueFile) -> None:
    for value in ("text", b"blob", None, 7):
        controller.insert(value)
    # The column's TEXT affinity turns numbers into text.
    values = [row[2] for row in rows(file)]
    assert values == [bytearray(b"text"), b"blob", None, bytearray(b"7")]
    assert [type(value) for value in values[:2]] == [bytearray, bytes]


def test_a_value_over_the_limit_is_met_by_its_beginning(controller: ControllerInbox, file: QueueFile) -> None:
    controller.insert("x" * 3_000_000)
    found = rows(file)[0][2]
    assert isinstance(found, Oversized)
    assert (len(found), found.size_bytes) == (65_536, 3_000_000)


def test_the_log_of_a_controller_that_never_checkpoints_is_moved_into_the_file(
    controller: ControllerInbox, file: QueueFile
) -> None:
    """SQLite starts a log anew once all of it has been moved: it cannot grow for ever."""
    controller.connection.execute("PRAGMA wal_autocheckpoint=0")
    controller.insert_many("x" * 1000 for _ in range(6000))
    log = controller.path.with_name(controller.path.name + "-wal")
    assert log.stat().st_size > 5_000_000
    assert controller.path.stat().st_size < 1_000_000
    delete(file, *range(1, 101))
    assert controller.path.stat().st_size > 5_000_000
    before = log.stat().st_size
    controller.insert_many("x" * 1000 for _ in range(1000))
    assert log.stat().st_size == before


def test_a_log_that_grew_once_is_not_moved_at_every_delete(
    controller: ControllerInbox, file: QueueFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file keeps its size for ever; what is in it was moved, so there is nothing to do."""
    monkeypatch.setattr(module, "LOG_LIMIT_DELETES", 10)
    controller.connection.execute("PRAGMA wal_autocheckpoint=0")
    controller.insert_many("x" * 1000 for _ in range(6000))
    rows(file)
    statements: list[str] = []
    assert file._connection is not None
    file._connection.set_trace_callback(statements.append)
    for row_id in range(1, 22):
        file.delete("messages", [row_id], [wire.mark(b"x" * 1000)], wire.row_mark)
    assert sum("wal_checkpoint" in statement for statement in statements) == 3  # the first, and each tenth


def remembered(file: QueueFile) -> tuple[list[int], list[bytes]]:
    """As the reader reads a batch."""
    found = rows(file)
    ids, marks = [row[0] for row in found], [wire.row_mark(row) for row in found]
    file.remember(ids, marks)
    return ids, marks


def never_asked(row: Any) -> bytes:
    raise AssertionError(f"row {row[0]} was read once more")


def test_what_nobody_has_written_since_is_deleted_without_being_read_again(
    controller: ControllerInbox, file: QueueFile
) -> None:
    controller.insert_many(texts(1, 10))
    ids, marks = remembered(file)
    file.delete("messages", ids[:4], marks[:4], never_asked)
    file.delete("messages", ids[4:], marks[4:], never_asked)
    assert controller.count() == 0


def test_after_any_other_write_each_row_is_read_again(controller: ControllerInbox, file: QueueFile) -> None:
    controller.insert_many(texts(1, 10))
    ids, marks = remembered(file)
    controller.insert(message(11))
    with pytest.raises(AssertionError, match="row 1 was read once more"):
        file.delete("messages", ids, marks, never_asked)
    assert controller.count() == 11


def test_marks_of_an_earlier_reading_do_not_delete_what_a_later_one_met(
    controller: ControllerInbox, file: QueueFile
) -> None:
    """Two have read the same rows, and the controller has changed one in between."""
    controller.insert_many(texts(1, 10))
    ids, marks = remembered(file)
    controller.connection.execute("UPDATE messages SET message = 'other' WHERE id = 5")
    remembered(file)
    with pytest.raises(Replaced):
        file.delete("messages", ids, marks, wire.row_mark)
    assert controller.count() == 10
    file.delete("messages", *remembered(file), never_asked)
    assert controller.count() == 0


def test_a_row_that_was_not_read_is_not_known(controller: ControllerInbox, file: QueueFile) -> None:
    controller.insert_many(texts(1, 3))
    ids, marks = remembered(file)
    with pytest.raises(AssertionError, match="was read once more"):
        file.delete("messages", [*ids[1:], 3], [*marks[1:], b"x" * 16], never_asked)


def test_what_is_remembered_is_bounded(controller: ControllerInbox, file: QueueFile) -> None:
    for at in range(0, 3 * module.MAX_KNOWN, 1000):
        rows(file)
        file.remember(range(at, at + 1000), [b"x" * 16] * 1000)
    assert len(file._known._marks) <= module.MAX_KNOWN + 1000


def test_what_was_read_by_one_connection_is_not_known_to_the_next(controller: ControllerInbox, file: QueueFile) -> None:
    """Another file with the same ids may stand at the name by then."""
    controller.insert("old")
    ids, marks = remembered(file)
    file.close()
    controller.close()
    for each in controller.path.parent.glob(f"{controller.path.name}*"):
        each.unlink()
    again = ControllerInbox(controller.path)
    again.insert("new")
    with pytest.raises(Replaced):
        file.delete("messages", ids, marks, wire.row_mark)
    assert [row[2] for row in rows(file)] == [bytearray(b"new")]
    again.close()
