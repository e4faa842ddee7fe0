"""Publishing what a server refuses: how one poisoned record is found, and how its limits are kept."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teg.adapters.clock import SystemClock
from teg.domain.errors import NotConnected
from teg.domain.server.rate_limits import Limits, Rate
from teg.domain.telemetry.ports import Stream
from teg.simulator.thingsboard.rate_limits import TokenBucket
from tests.support.links import FakeLink, FakeOutbox, numbers
from tests.support.publishers import FILLER, OWN_LINE, Running, drain, never, publisher

# --- poison


@pytest.mark.parametrize("poisoned", [{1}, {777}, {2000}, {1, 2, 3}, {5, 1500}, {700, 701, 1999, 2000}])
def test_poisoned_records_are_set_aside_and_all_others_arrive(poisoned: set[int]) -> None:
    outbox = FakeOutbox()
    outbox.add(Stream.DATA, range(1, 2001), ',"x":"' + "x" * 200 + '"')
    link = FakeLink(takes=lambda payload: not poisoned & set(numbers(payload)), hold=1)
    drain(outbox, link, connections=200)
    assert set(outbox.aside) == poisoned
    assert {number for _, number in outbox.marked} == set(range(1, 2001)) - poisoned
    assert link.probes >= 3 * len(poisoned)


def test_suspects_go_one_publish_at_a_time() -> None:
    """With two on their way nobody could tell which one the server closed on."""
    outbox, link = FakeOutbox(), FakeLink(hold=1000)
    outbox.add(Stream.DATA, range(1, 401), FILLER)
    strikes = iter([True, True, False])
    link.takes = lambda _: next(strikes, True)
    mine = publisher(outbox, link)
    with pytest.raises(NotConnected):
        mine.run(never)
    link.payloads, link.most_waiting = [], 0
    link.reconnect()
    running = Running(mine)
    for number in range(1, 4):
        link.wait_sent(number)
        assert link.most_waiting == 1
        link.acknowledge()
    link.hold = 1
    link.acknowledge()
    running.thread.join(5)
    while running.thread.is_alive():
        link.acknowledge()
        running.thread.join(0.05)
    assert outbox.left == 0


def test_one_poisoned_record_costs_few_connections() -> None:
    outbox = FakeOutbox()
    outbox.add(Stream.DATA, range(1, 10_001), ',"x":"' + "x" * 200 + '"')
    link = FakeLink(takes=lambda payload: 4321 not in numbers(payload), hold=1)
    drain(outbox, link)
    assert link.epoch <= 16
    assert link.reconnects_now >= link.epoch - 2
    assert "closes the connection whenever this record is sent" in outbox.aside[4321]


def test_a_republished_or_own_record_can_be_the_poison_too() -> None:
    outbox = FakeOutbox()
    outbox.add(Stream.OWN, range(1, 20))
    outbox.add(Stream.REPUBLISH, range(100, 300))
    link = FakeLink(takes=lambda payload: not {7, 123} & set(numbers(payload)))
    drain(outbox, link)
    assert set(outbox.aside) == {7, 123}


def test_a_bad_link_is_never_taken_for_poison() -> None:
    outbox = FakeOutbox()
    outbox.add(Stream.DATA, range(1, 3001), FILLER)
    seen = 0

    def takes(_: bytes) -> bool:
        nonlocal seen
        seen += 1
        return seen % 7 != 0  # the server closes on every 7th publish, whatever it holds

    link = FakeLink(takes=takes)
    drain(outbox, link, connections=1000)
    assert outbox.aside == {}
    assert len(outbox.marked) == 3000


def test_a_connection_that_we_end_ourselves_makes_nothing_suspect() -> None:
    outbox, link = FakeOutbox(), FakeLink(hold=3)
    outbox.add(Stream.DATA, range(1, 1001), FILLER)
    mine = publisher(outbox, link)
    link.takes = lambda _: link.lose(by_peer=False) or True  # type: ignore[func-returns-value]
    with pytest.raises(NotConnected):
        mine.run(never)
    link.takes, link.hold = lambda _: True, 1
    link.reconnect()
    mine.run(never)
    assert link.reconnects_now == 0
    assert link.probes == 0
    assert max(map(len, link.sent)) > 50


def test_good_times_return_after_the_poison_was_found() -> None:
    outbox = FakeOutbox()
    outbox.add(Stream.DATA, range(1, 101))
    link = FakeLink(takes=lambda payload: 50 not in numbers(payload))
    mine = drain(outbox, link)
    outbox.add(Stream.DATA, range(101, 1001))
    link.payloads, link.probes = [], 0
    mine.run(never)
    assert len(link.payloads) == 1
    assert link.probes == 0


# --- limits


def test_the_servers_limit_of_points_is_never_exceeded() -> None:
    """Judged by the stand-in's own bucket, in real time: 300 records of 2 points, 250 points a second."""
    bucket = TokenBucket("250:1")
    outbox = FakeOutbox()
    link = FakeLink(takes=lambda payload: bucket.take(2 * len(numbers(payload)), time.monotonic()))
    outbox.add(Stream.DATA, range(1, 301), ',"a":1')
    mine = publisher(outbox, link, SystemClock())
    mine.pacer.use(Limits(points=(Rate(250, 1),)), SystemClock().monotonic_s())
    mine.run(never)
    assert (outbox.left, link.epoch) == (0, 1)
    assert max(map(len, link.sent)) == 50  # half of the 80 % that we use of the bucket


def test_a_record_with_more_points_than_the_bucket_still_goes_alone() -> None:
    """The server will close on it and it will be set aside; holding it back would hold up everything behind."""
    outbox, link = FakeOutbox(), FakeLink()
    outbox.add(Stream.DATA, [1, 3])
    outbox.add(Stream.DATA, [2], "".join(f',"k{number}":1' for number in range(150)))
    mine = publisher(outbox, link, SystemClock())
    mine.pacer.use(Limits(points=(Rate(100, 1),)), SystemClock().monotonic_s())
    mine.run(never)
    assert link.sent == [[1], [2], [3]]


def test_the_servers_payload_limit_is_kept() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    outbox.add(Stream.DATA, range(1, 200), FILLER)
    mine = publisher(outbox, link)
    mine.pacer.use(Limits(max_payload_bytes=8000), 0.0)
    mine.run(never)
    assert max(map(len, link.payloads)) <= 8000
    assert outbox.left == 0


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=60),
    st.lists(st.sampled_from(["take", "close", "lose"]), max_size=40),
    st.integers(1, 5),
)
@settings(max_examples=200)
def test_whatever_the_link_does_every_row_is_marked_once(lanes: list[int], fate: list[str], hold: int) -> None:
    outbox = FakeOutbox()
    for number, lane in enumerate(lanes, start=1):
        outbox.add(Stream(lane), [number])
    fates = iter(fate)
    link = FakeLink(hold=1)

    def takes(_: bytes) -> bool:
        what = next(fates, "take")
        if what == "lose":
            link.lose(by_peer=False)
        return what != "close"

    link.takes = takes
    drain(outbox, link, connections=len(fate) + 5)
    seen = sorted([number for _, number in outbox.marked] + list(outbox.aside))
    assert [number for number in seen if number != OWN_LINE] == list(range(1, len(lanes) + 1))
