"""A reader that computes without end goes last; one that is only slow, or good, does not."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from teg.adapters.inbox import processor_time, reader
from teg.adapters.inbox.mailbox import Inbox
from teg.domain.errors import Unavailable
from tests.support.running import ControllerInbox, message

#: What the reader does at each look for rows; it goes on once the gateway has had its time to act.
GREEDY = "while os.getpriority(os.PRIO_PROCESS, 0) < 19: pass"
SLOW = "time.sleep(1.2)"
BETWEEN = """
from teg.adapters.inbox import child, queue_file
import os, time
def has_rows(*_):
    {what}
    return True
queue_file.QueueFile.has_rows_between = has_rows
child.main()
"""


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    controller = ControllerInbox(tmp_path / "communication_queue.db")
    controller.insert(message(1))
    inbox = Inbox(controller.path)
    yield inbox
    inbox.close()
    controller.close()


def priority(inbox: Inbox) -> int:
    assert inbox._file._reader is not None
    return os.getpriority(os.PRIO_PROCESS, inbox._file._reader.pid) - os.getpriority(os.PRIO_PROCESS, 0)


def behave(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    start = reader._START.partition("from teg.adapters.inbox.child")[0].rstrip("; ")
    monkeypatch.setattr(reader, "_START", f"{start}\n{BETWEEN.format(what=what)}")
    monkeypatch.setattr(reader, "REQUEST_S", 60.0)
    monkeypatch.setattr(processor_time, "HUMBLE_AFTER_S", 0.5)


def test_a_reader_that_computes_without_end_goes_last(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, GREEDY)
    assert inbox.has_rows()
    assert priority(inbox) == 19 - os.getpriority(os.PRIO_PROCESS, 0)


def test_a_reader_that_waits_keeps_its_place(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(monkeypatch, SLOW)
    assert inbox.has_rows()
    assert priority(inbox) == 0


def test_a_good_reader_keeps_its_place(inbox: Inbox) -> None:
    for _ in range(20):
        assert inbox.read(None, 10, 1 << 20).rows.ids
    assert priority(inbox) == 0


def test_one_that_computes_between_requests_goes_last_at_the_next(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken over by its file, it answers at once and computes then."""
    assert inbox.has_rows()
    assert inbox._file._reader is not None
    monkeypatch.setattr(inbox._file._reader._time, "_at_answer_s", -1.0)
    assert inbox.has_rows()
    assert priority(inbox) == 19 - os.getpriority(os.PRIO_PROCESS, 0)


def test_a_reader_that_has_ended_is_no_trouble(inbox: Inbox) -> None:
    assert inbox.has_rows()
    assert inbox._file._reader is not None
    inbox._file._reader._process.kill()
    inbox._file._reader._process.wait()
    assert inbox._file._reader._time.used_s() == 0.0
    with suppress(Unavailable):
        inbox.has_rows()
