"""Publishing: the window, the order, and what a lost connection costs."""

import threading
from collections import Counter

import orjson
import pytest

from teg.domain.errors import NotConnected, Unavailable
from teg.domain.server.wire import MAX_PAYLOAD_BYTES, MAX_UNACKNOWLEDGED
from teg.domain.telemetry.in_flight import ACK_TIMEOUT_S, WINDOW
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.publisher import MARK_AFTER, Publisher
from tests.support.links import FakeClock, FakeLink, FakeOutbox
from tests.support.publishers import FILLER, Running, never, publisher
from tests.support.running import wait_until


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
    link.takes = lambda _: stale.append(link.newest_waiting()) or True  # type: ignore[func-returns-value]
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


def test_a_notification_while_idle_sends_without_a_task() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    mine = Publisher(outbox, link, FakeClock(), idle_timeout_s=30.0)
    stop = threading.Event()
    thread = threading.Thread(target=mine.run, args=(stop.is_set,))
    thread.start()
    wait_until(mine.signal.notify, 10, "somebody answers the signal")
    outbox.add(Stream.DATA, [1])
    assert mine.signal.notify()
    wait_until(lambda: outbox.left == 0, 10, "the row is sent")
    stop.set()
    mine.signal.notify()
    thread.join(10)
