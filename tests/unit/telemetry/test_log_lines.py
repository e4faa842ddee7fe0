"""Log lines as telemetry: none lost, none doubled, apart in time, a flood cut and said."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.errors import Unavailable
from teg.domain.server.wire import encodable
from teg.domain.telemetry.reporting import MAX_LINE_CHARACTERS, MAX_LINES_A_MINUTE, MAX_WAITING_LINES, LogLines
from tests.support.links import FakeClock
from tests.support.own_reports import FakeOwn

MINUTE_MS = 60_000


class Lines:
    def __init__(self) -> None:
        self.own, self.clock = FakeOwn(), FakeClock()
        self.stored = 0
        self.lines = LogLines(self.own, self.clock, self._stored)

    def _stored(self) -> None:
        self.stored += 1

    def add(self, text: str = "line", ms: int = 0, severity: str = "INFO") -> None:
        self.lines.add(self.clock.ms + ms, severity, text)

    def messages(self) -> list[str]:
        return [values["message"] for _, values in self.own.records]

    def timestamps(self) -> list[int]:
        return [ts_ms - self.clock.ms for ts_ms, _ in self.own.records]


def test_a_line_becomes_a_record() -> None:
    found = Lines()
    assert not found.lines.waiting
    found.add("started", severity="WARN")
    assert found.lines.waiting
    found.lines.store()
    assert not found.lines.waiting
    assert found.own.records == [(found.clock.ms, {"severity": "WARN", "message": "GATEWAY - started"})]
    assert found.stored == 1


def test_nothing_waits_nothing_is_written() -> None:
    found = Lines()
    found.lines.store()
    assert (found.own.records, found.stored) == ([], 0)


def test_lines_of_one_millisecond_stay_apart() -> None:
    """The server keeps one value a key and millisecond."""
    found = Lines()
    for number in range(3):
        found.add(f"line {number}")
    found.lines.store()
    found.add("line 3", ms=1)
    found.add("line 4", ms=100)
    found.lines.store()
    assert found.timestamps() == [0, 1, 2, 3, 100]


def test_a_clock_that_is_set_back_is_believed_when_it_is_far() -> None:
    found = Lines()
    found.add("a", ms=0)
    found.add("b", ms=-2000)
    found.add("c", ms=-3_600_000)
    found.add("d", ms=-3_600_000)
    found.lines.store()
    assert found.timestamps() == [0, 1, -3_600_000, -3_599_999]


def test_lines_wait_while_the_archive_fails_and_keep_their_times() -> None:
    found = Lines()
    for number in range(3):
        found.add(f"line {number}")
    found.own.broken = True
    for _ in range(10):
        with pytest.raises(Unavailable):
            found.lines.store()
    found.own.broken = False
    found.lines.store()
    assert found.messages() == [f"GATEWAY - line {number}" for number in range(3)]
    assert found.timestamps() == [0, 1, 2]
    assert found.stored == 1


def test_a_flood_is_cut_and_said_in_one_line() -> None:
    found = Lines()
    for number in range(MAX_LINES_A_MINUTE + 40):
        found.add(f"line {number}")
    found.lines.store()
    assert len(found.own.records) == MAX_LINES_A_MINUTE
    found.clock.ms += MINUTE_MS
    found.lines.store()
    assert found.messages()[-1] == "GATEWAY - 40 log lines were not sent (rate limit)"
    assert found.own.records[-1][1]["severity"] == "WARN"
    found.add("next")
    found.lines.store()
    assert found.messages()[-1] == "GATEWAY - next", "a new minute, a new allowance; and it is said once"


def test_memory_is_bounded_while_the_archive_fails() -> None:
    found = Lines()
    for minute in range(MAX_WAITING_LINES // MAX_LINES_A_MINUTE + 10):
        for _ in range(MAX_LINES_A_MINUTE):
            found.add(ms=minute * MINUTE_MS)
    found.lines.store()
    assert len(found.own.records) == MAX_WAITING_LINES + 1, "and the line that says how many were left out"


@pytest.mark.parametrize("text", ["x" * 100_000, "\ud800", "\x00", 'quo"te\nline', ""])
def test_any_text_can_be_a_line(text: str) -> None:
    found = Lines()
    found.add(text)
    found.lines.store()
    [message] = found.messages()
    assert message.startswith("GATEWAY - ")
    assert len(message) <= MAX_LINE_CHARACTERS + len("GATEWAY - ")


@given(st.text(st.characters()))
def test_encodable_text_is_encodable(text: str) -> None:
    assert len(encodable(text).encode()) >= len(text)


def test_lines_may_be_added_while_others_are_stored() -> None:
    """A line that failing storage logs must neither wait nor be lost."""
    found = Lines()
    found.add("before")
    found.own.go_on.clear()
    storing = threading.Thread(target=found.lines.store)
    storing.start()
    assert found.own.entered.wait(20)
    found.add("meanwhile")
    found.own.go_on.set()
    storing.join(20)
    found.lines.store()
    assert found.messages() == ["GATEWAY - before", "GATEWAY - meanwhile"]


def test_two_that_store_at_once_neither_double_nor_drop() -> None:
    found = Lines()
    found.add("one")
    found.own.go_on.clear()
    both = [threading.Thread(target=found.lines.store) for _ in range(2)]
    for thread in both:
        thread.start()
    assert found.own.entered.wait(20)
    found.add("two")
    found.own.go_on.set()
    for thread in both:
        thread.join(20)
    found.lines.store()
    assert found.messages() == ["GATEWAY - one", "GATEWAY - two"]
