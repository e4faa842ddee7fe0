"""Records that wait for others to share a message: when the next one goes, who asks, what is never waited for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.telemetry.compact import compact
from teg.domain.telemetry.gathering import Gathering
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.publisher import Publisher
from tests.support.links import FakeClock, FakeLink, FakeOutbox
from tests.support.publishers import never


class Site:
    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.outbox, self.link, self.clock = FakeOutbox(), FakeLink(), FakeClock()
        link: Any = self.link
        gathering = Gathering(lambda: self.window_s)
        self.publisher = Publisher(self.outbox, link, self.clock, idle_timeout_s=0.0, gathering=gathering)

    def second(self, number: int) -> None:
        """A record a second; the tasks' way to notice it, and the timetable's."""
        self.outbox.add(Stream.DATA, [number])
        if not self.publisher.postponed or self.publisher.due:
            self.publisher.run(never)
        self.clock.advance(1)


def test_without_a_window_every_record_goes_at_once() -> None:
    here = Site(0.0)
    for number in range(1, 31):
        here.second(number)
    assert len(here.link.payloads) == 30
    assert not here.publisher.due


def test_records_of_a_window_share_a_message_and_all_go() -> None:
    here = Site(10.0)
    for number in range(1, 41):
        here.second(number)
    here.clock.advance(10)
    assert here.publisher.due
    here.publisher.run(never)
    assert sorted(here.outbox.marked) == [(Stream.DATA, number) for number in range(1, 41)]
    assert len(here.link.payloads) == 5
    assert not here.publisher.due


def test_a_run_in_between_sends_nothing_and_loses_nothing() -> None:
    here = Site(10.0)
    here.second(1)
    here.outbox.add(Stream.DATA, [2])
    here.publisher.run(never)
    assert len(here.link.payloads) == 1
    here.clock.advance(10)
    assert here.publisher.due
    here.publisher.run(never)
    assert here.outbox.left == 0


def test_a_window_that_is_let_go_opens_at_once() -> None:
    here = Site(600.0)
    here.second(1)
    here.outbox.add(Stream.DATA, [2])
    assert here.publisher.postponed
    here.window_s = 0.0
    assert not here.publisher.postponed


def test_a_backlog_goes_whole_when_its_time_has_come() -> None:
    here = Site(60.0)
    here.outbox.add(Stream.DATA, range(1, 5001), ',"x":"' + "x" * 200 + '"')
    here.publisher.run(never)
    assert here.outbox.left == 0


def test_the_culprit_of_a_close_is_looked_for_without_waiting() -> None:
    here = Site(3600.0)
    here.link.takes = lambda payload: b'"n":7}' not in payload
    here.outbox.add(Stream.DATA, range(1, 20))
    for _ in range(60):
        try:
            here.publisher.run(never)
        except Exception:  # noqa: BLE001 - the connection ends, as it should
            here.link.reconnect()
        if 7 in here.outbox.aside:
            break
    assert list(here.outbox.aside) == [7]


PLAIN = st.none() | st.booleans() | st.integers() | st.text()


@given(st.recursive(PLAIN, lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner)))
def test_blanks_go_and_nothing_else(value: Any) -> None:
    tight = json.dumps(value, separators=(",", ":")).encode()
    assert compact(json.dumps(value, indent=2).encode()) == compact(tight) == tight


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (b'{"a b": 1.50, "c": "x \\" : , y"}', b'{"a b":1.50,"c":"x \\" : , y"}'),
        (b'{"ts": 1, "values": {"a":\t1e-05 }}\n', b'{"ts":1,"values":{"a":1e-05}}'),
        ('{"ä": "ü  ß"}'.encode(), '{"ä":"ü  ß"}'.encode()),
    ],
)
def test_numbers_and_texts_stay_as_they_are(text: bytes, short: bytes) -> None:
    assert compact(text) == short
