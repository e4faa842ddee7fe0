"""A publisher that gave up lets go of everything at once: the next one may already be at work on the same state."""

import threading
from typing import Any, cast

import pytest

from teg.domain.telemetry.backlog import Published
from teg.domain.telemetry.in_flight import DeliveryMarks
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.publisher import Publisher
from tests.support.links import FakeClock, FakeLink, FakeOutbox


def never() -> bool:
    return False


def test_what_the_next_publisher_has_in_hand_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is held up just after it gave up; meanwhile the second one sends and is acknowledged."""
    outbox, link = FakeOutbox(), FakeLink()
    marks = DeliveryMarks(outbox)
    publisher = Publisher(outbox, cast(Any, link), FakeClock(), idle_timeout_s=0.0, marks=marks)
    outbox.add(Stream.DATA, range(1, 4))
    wait = publisher.signal.wait

    def wait_then_be_held_up(timeout_s: float) -> bool:
        told = wait(timeout_s)
        if not told:
            outbox.add(Stream.DATA, [9])
            marks.add([Delivery(Stream.DATA, [9], False)], 2)
            publisher._flight.add(1000, Published(2, rows=0, old=0, deliveries=(), sample=b"[]"), 0.0)
        return told

    monkeypatch.setattr(publisher.signal, "wait", wait_then_be_held_up)
    publisher.run(never)
    assert outbox.marked == [(Stream.DATA, number) for number in (1, 2, 3)], "9 is the next one's to mark"
    assert len(publisher._flight) == 1


def test_a_stop_marks_what_was_acknowledged() -> None:
    outbox, link = FakeOutbox(), FakeLink()
    publisher = Publisher(outbox, cast(Any, link), FakeClock(), idle_timeout_s=0.0)
    outbox.add(Stream.DATA, range(1, 4))
    stopping = threading.Event()

    def stop_at_once(payload: bytes) -> bool:
        stopping.set()
        return True

    link.takes = stop_at_once
    publisher.run(stopping.is_set)
    assert outbox.marked == [(Stream.DATA, number) for number in (1, 2, 3)]


def test_a_lost_connection_marks_what_was_acknowledged() -> None:
    outbox, link = FakeOutbox(), FakeLink(hold=1)
    publisher = Publisher(outbox, cast(Any, link), FakeClock(), idle_timeout_s=3600.0)
    outbox.add(Stream.DATA, range(1, 4))

    def run() -> None:
        with pytest.raises(Exception, match="connection"):
            publisher.run(never)

    link.takes = lambda payload: True
    thread = threading.Thread(target=run)
    thread.start()
    while not link.payloads:
        pass
    link.connected = False
    publisher.signal.notify()
    thread.join(20)
    assert outbox.marked == [(Stream.DATA, number) for number in (1, 2, 3)]
