"""The journal of quick calls while it cannot be written: bounded, and no silent loss."""

import pytest

from teg.domain.errors import Unavailable
from teg.domain.rpc.journal import MAX_BUFFERED, CallJournal, Entry
from teg.domain.server.wire import RpcRequest
from tests.support.links import FakeClock


class Table:
    """As much of the table as the quick calls need."""

    def __init__(self) -> None:
        self.full = True
        self.entries: list[Entry] = []

    def append(self, entries: list[Entry]) -> None:
        if self.full:
            raise Unavailable("the disk is full")
        self.entries += entries

    def prune(self) -> None: ...


def test_what_did_not_fit_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    table = Table()
    journal = CallJournal(table, FakeClock())  # type: ignore[arg-type]
    for number in range(MAX_BUFFERED + 7):
        journal.note(RpcRequest(number, "ping", None), "pong", 0.0)
    with pytest.raises(Unavailable):
        journal.flush()
    assert caplog.text == ""
    table.full = False
    journal.flush()
    assert [entry.key.request_id for entry in table.entries] == list(range(7, MAX_BUFFERED + 7)), "the newest"
    assert "7 quick calls are not in the journal" in caplog.text
    caplog.clear()
    journal.note(RpcRequest(1, "ping", None), "pong", 0.0)
    journal.flush()
    assert caplog.text == "", "once"
