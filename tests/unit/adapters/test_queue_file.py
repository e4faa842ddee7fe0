"""The reader's own side of the file, in this process: rows as they are, and the log that is kept small."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.inbox import queue_file as module
from teg.adapters.inbox import wire
from teg.adapters.inbox.queue_file import QueueFile
from teg.domain.telemetry.validation import Oversized
from tests.support.running import ControllerInbox


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
