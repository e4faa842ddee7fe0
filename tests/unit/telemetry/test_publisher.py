"""Publishing: the window, the order, what a lost connection costs, and how one poisoned record is found."""

import threading
import time
from collections import Counter
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teg.adapters.clock import SystemClock
from teg.domain.errors import NotConnected, Unavailable
from teg.domain.ports import Clock
from teg.domain.server.rate_limits import Limits, Rate
from teg.domain.server.wire import MAX_PAYLOAD_BYTES, MAX_UNACKNOWLEDGED
from teg.domain.telemetry.in_flight import ACK_TIMEOUT_S, MOST_BYTES, WINDOW
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.publisher import MARK_AFTER, Publisher
from teg.simulator.thingsboard.rate_limits import TokenBucket
from tests.support.links import FakeClock, FakeLink, FakeOutbox, numbers
from tests.support.running import wait_until

#: Id of a log line of the gateway's own.
OWN_LINE = 99_999
FILLER = ',"x":"' + "x" * 1000 + '"'


def never() -> bool:
    return False


class Running:
    """A publisher on a thread of its own, and how it ended."""

    def __init__(self, mine: Publisher, stopping: Callable[[], bool] = never) -> None:
        self.error: type[Exception] | None = None
        self._mine, self._stopping = mine, stopping
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._mine.run(self._stopping)
        except Unavailable as error:
            self.error = type(error)

    def ends_with(self, error: type[Exception] | None) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert self.error is error


def publisher(outbox: FakeOutbox, link: FakeLink, clock: Clock | None = None) -> Publisher:
    """On a link that has shown how much it carries (what it does before: test_in_flight.py)."""
    mine = Publisher(outbox, link, clock or FakeClock(), idle_timeout_s=0.0)
    mine._flight.capacity.window_bytes = MOST_BYTES
    return mine


def drain(outbox: FakeOutbox, link: FakeLink, connections: int = 100) -> Publisher:
    """Publish with as many new connections as it takes."""
    mine = publisher(outbox, link)
    for _ in range(connections):
        try:
            mine.run(never)
        except NotConnected:
            link.reconnect()
        else:
            if not outbox.left:
                return mine
            outbox.add(Stream.OWN, [OWN_LINE])  # the gateway says what it suspects, and that line is sent, too
    raise AssertionError(f"{outbox.left} rows are left after {connections} connections")


def test_rows_go_in_order_in_arrays_below_the_limit() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    outbox.add(Stream.DATA, range(1, 1001), FILLER)
    publisher(outbox, link).run(never)
    assert [number for batch in link.sent for number in batch] == list(range(1, 1001))
    assert max(map(len, link.payloads)) <= MAX_PAYLOAD_BYTES
    assert len(link.payloads) <= 1000 * 1100 // MAX_PAYLOAD_BYTES + 6  # full arrays, but for the ends of the reads
    assert outbox.marked == [(Stream.DATA, number) for number in range(1, 1001)]
    assert outbox.marks < len(link.payloads)


def test_an_empty_outbox_sends_nothing_at_all() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    publisher(outbox, link).run(never)
    assert link.payloads == []


@pytest.mark.parametrize("hold", [2, 7, WINDOW])
def test_acknowledgements_in_any_order_mark_exactly_their_rows(hold: int) -> None:
    outbox, link = FakeOutbox(), FakeLink(hold=hold)
    outbox.add(Stream.DATA, range(1, 2001), FILLER)
    mine = publisher(outbox, link)
    thread = threading.Thread(target=mine.run, args=(never,))
    thread.start()
    while thread.is_alive():  # the last few never fill the hold
        thread.join(0.05)
        link.acknowledge()
    assert outbox.left == 0
    assert Counter(outbox.marked) == Counter((Stream.DATA, number) for number in range(1, 2001))
    assert hold <= link.most_waiting <= WINDOW < MAX_UNACKNOWLEDGED


def test_nothing_is_marked_before_its_acknowledgement() -> None:
    outbox, link = FakeOutbox(), FakeLink(hold=1000)
    outbox.add(Stream.DATA, range(1, 101), FILLER * 50)  # one row a publish
    running = Running(publisher(outbox, link))
    wait_until(lambda: link.waiting == WINDOW, 10, "a full window")
    assert outbox.marked == []
    link.acknowledge(MARK_AFTER)
    wait_until(lambda: link.waiting == WINDOW, 10, "a full window again")
    link.lose(by_peer=False)
    running.ends_with(NotConnected)
    assert len(outbox.marked) == MARK_AFTER
    assert len(link.sent) == WINDOW + MARK_AFTER


def test_what_was_not_acknowledged_goes_again_unchanged() -> None:
    outbox = FakeOutbox()
    outbox.add(Stream.DATA, range(1, 501), FILLER)
    strikes = iter([True, True, False])
    link = FakeLink(takes=lambda _: next(strikes, True), hold=3)
    lost_payloads: list[bytes] = []
    mine = publisher(outbox, link)
    with pytest.raises(NotConnected):
        mine.run(never)
    lost_payloads += link.payloads
    link.payloads, link.hold = [], 1
    link.reconnect()
    mine.run(never)
    assert outbox.left == 0
    again = [element for payload in link.payloads for element in orjson.loads(payload)]
    assert [element for payload in lost_payloads for element in orjson.loads(payload)] == again[: len(again)][
        : sum(len(orjson.loads(payload)) for payload in lost_payloads)
    ]


def test_an_acknowledgement_of_an_earlier_connection_marks_nothing() -> None:
    outbox, link = FakeOutbox(), FakeLink(hold=1000)
    outbox.add(Stream.DATA, [1])
    mine = publisher(outbox, link)
    stale = []
    link.takes = lambda _: stale.append(link._waiting[-1]) or True  # type: ignore[func-returns-value]
    running = Running(mine)
    wait_until(lambda: link.waiting == 1, 10, "the publish")
    link.lose(by_peer=False)
    running.ends_with(NotConnected)
    link.reconnect()
    running = Running(mine)
    wait_until(lambda: link.waiting == 1, 10, "the second publish")
    stale[0](True)  # a late PUBACK of the first connection
    assert outbox.marked == []
    link.acknowledge()
    running.ends_with(None)
    assert outbox.marked == [(Stream.DATA, 1)]


def test_without_a_session_nothing_is_sent() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    outbox.add(Stream.DATA, [1])
    link.lose(by_peer=True)
    with pytest.raises(NotConnected):
        publisher(outbox, link).run(never)
    assert link.payloads == []
    assert outbox.left == 1


def test_own_reports_go_first_and_republished_rows_take_turns() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    outbox.add(Stream.DATA, range(1000, 2000), FILLER)
    outbox.add(Stream.REPUBLISH, range(1, 1000), FILLER)
    outbox.add(Stream.OWN, range(5000, 5010))
    publisher(outbox, link).run(never)
    lanes = ["own" if batch[0] >= 5000 else "data" if batch[0] >= 1000 else "again" for batch in link.sent]
    assert lanes[0] == "own"  # and data in the room that is left
    assert lanes[1:11] == ["again", "data"] * 5
    assert outbox.left == 0


def test_rows_republished_behind_the_reading_position_are_found() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    outbox.add(Stream.REPUBLISH, range(100, 200))
    mine = publisher(outbox, link)

    def meanwhile(_: bytes) -> bool:
        outbox.add(Stream.REPUBLISH, range(1, 50))
        mine.signal.notify()
        link.takes = lambda _: True
        return True

    link.takes = meanwhile
    mine.run(never)
    assert outbox.left == 0


def test_a_server_that_never_acknowledges_is_given_up() -> None:
    outbox, link, clock = FakeOutbox(), FakeLink(hold=1000), FakeClock()
    outbox.add(Stream.DATA, [1])
    mine = publisher(outbox, link, clock)
    running = Running(mine)
    wait_until(lambda: link.waiting == 1, 10, "the publish")
    clock.s += ACK_TIMEOUT_S - 1
    assert link.given_up == []
    clock.s += 2
    running.ends_with(NotConnected)
    assert link.given_up == [f"no PUBACK for {ACK_TIMEOUT_S:.0f} s"]
    assert outbox.aside == {}


def test_an_archive_that_fails_to_mark_loses_nothing() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    outbox.add(Stream.DATA, range(1, 4))
    healthy = outbox.mark_published

    def failing(deliveries: object) -> None:
        raise Unavailable("disk full")

    outbox.mark_published = failing  # type: ignore[method-assign]
    mine = publisher(outbox, link)
    with pytest.raises(Unavailable, match="disk full"):
        mine.run(never)
    assert outbox.left == 3
    outbox.mark_published = healthy  # type: ignore[method-assign]
    mine.run(never)
    assert outbox.left == 0
    assert sorted(outbox.marked) == [(Stream.DATA, 1), (Stream.DATA, 2), (Stream.DATA, 3)]


def test_a_stop_waits_a_moment_for_what_is_in_flight() -> None:
    outbox, link = FakeOutbox(), FakeLink(hold=1000)
    outbox.add(Stream.DATA, [1])
    stop = threading.Event()
    thread = threading.Thread(target=publisher(outbox, link).run, args=(stop.is_set,))
    thread.start()
    wait_until(lambda: link.waiting == 1, 10, "the publish")
    stop.set()
    link.acknowledge()
    thread.join(10)
    assert outbox.marked == [(Stream.DATA, 1)]


def test_a_ring_while_lingering_sends_without_a_task() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    mine = Publisher(outbox, link, FakeClock(), idle_timeout_s=30.0)
    stop = threading.Event()
    thread = threading.Thread(target=mine.run, args=(stop.is_set,))
    thread.start()
    wait_until(mine.signal.notify, 10, "somebody answers the bell")
    outbox.add(Stream.DATA, [1])
    assert mine.signal.notify()
    wait_until(lambda: outbox.left == 0, 10, "the row is sent")
    stop.set()
    mine.signal.notify()
    thread.join(10)


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
    assert link.hurries >= link.epoch - 2
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
    assert link.hurries == 0
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
    assert max(map(len, link.sent)) == 100  # 80 % of the bucket


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
