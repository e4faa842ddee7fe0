"""What the link carries: a simulated link of some bytes a second and some delay, in virtual time."""

import pytest

from teg.domain.telemetry.backlog import Batch, Published
from teg.domain.telemetry.in_flight import ACK_TIMEOUT_S, LEAST_BYTES, MOST_BYTES, WINDOW, InFlight
from teg.domain.telemetry.ports import Delivery, Stream


def batch(size: int) -> Published:
    return Published(size, rows=1, old=0, deliveries=(), sample=b"[]")


class SimulatedLink:
    """Carries `bytes_per_s`, acknowledges `delay_s` after the last byte has left; `run` keeps it as full as allowed."""

    def __init__(self, bytes_per_s: float, delay_s: float) -> None:
        self.bytes_per_s, self.delay_s = bytes_per_s, delay_s
        self.flight = InFlight()
        self.now_s = 0.0
        self.left_s = 0.0
        self.carried = self.longest_queue_s = 0.0
        self._pubacks: list[tuple[float, int]] = []
        self._serial = 0

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            while self.flight.room:
                self._send(self.flight.capacity.payload_bytes)
            due_s, serial = min(self._pubacks)
            self._pubacks.remove((due_s, serial))
            self.now_s = max(self.now_s, due_s)
            self.flight.acknowledged(serial, self.now_s)

    def _send(self, size: int) -> None:
        self._serial += 1
        self.left_s = max(self.now_s, self.left_s) + size / self.bytes_per_s
        self.longest_queue_s = max(self.longest_queue_s, self.left_s - self.now_s)
        self.carried += size
        self.flight.add(self._serial, batch(size), self.now_s)
        self._pubacks.append((self.left_s + self.delay_s, self._serial))


@pytest.mark.parametrize("bytes_per_s", [300, 1_000, 10_000, 100_000])
@pytest.mark.parametrize("delay_s", [0.0, 0.05, 1.0])
def test_a_slow_link_is_kept_busy_and_its_queue_short(bytes_per_s: float, delay_s: float) -> None:
    link = SimulatedLink(bytes_per_s, delay_s)
    link.run(120)
    link.carried = link.longest_queue_s = 0.0
    link.run(240)
    assert link.carried >= 0.85 * 240 * bytes_per_s
    assert link.longest_queue_s <= max(6.0, 4 * LEAST_BYTES / bytes_per_s), "an answer to a call waits that long"


def test_a_fast_link_gets_full_arrays_and_the_full_window_soon() -> None:
    link = SimulatedLink(10_000_000, 0.05)
    link.run(2)
    assert link.flight.capacity.payload_bytes == 60_000
    assert link.flight.capacity.window_bytes == MOST_BYTES
    assert len(link.flight) >= WINDOW - 1


@pytest.mark.parametrize("delay_s", [5.0, 30.0])
def test_a_server_that_takes_its_time_is_no_slow_link(delay_s: float) -> None:
    link = SimulatedLink(10_000_000, delay_s)
    link.run(delay_s * 20)
    assert link.flight.capacity.payload_bytes == 60_000


def test_a_link_that_becomes_slow_and_fast_again_is_followed() -> None:
    link = SimulatedLink(1_000_000, 0.05)
    link.run(10)
    link.bytes_per_s = 1_000
    link.run(2000)  # what was in the window when it became slow alone takes 12 minutes
    link.carried = link.longest_queue_s = 0.0
    link.run(100)
    assert link.longest_queue_s <= 8.0
    link.bytes_per_s = 1_000_000
    link.run(60)
    assert link.flight.capacity.window_bytes >= 500_000


def test_live_rows_say_nothing_about_how_much_a_link_would_carry() -> None:
    flight = InFlight()
    before = flight.capacity.window_bytes
    for serial in range(1000):
        flight.add(serial, batch(100), float(serial))
        flight.acknowledged(serial, serial + 0.01)
    assert flight.capacity.window_bytes == before


def test_a_record_larger_than_the_window_goes_alone() -> None:
    flight = InFlight()
    assert flight.room
    flight.add(1, batch(50_000), 0.0)
    assert not flight.room
    flight.acknowledged(1, 1.0)
    assert flight.room


# --- when a PUBACK is overdue


def waiting(*serials: int) -> InFlight:
    flight = InFlight()
    for serial in serials:
        flight.add(serial, batch(500), 0.0)
    return flight


def test_nothing_on_its_way_is_never_overdue() -> None:
    assert not InFlight().overdue(1e9, 1e9)


def test_silence_is_overdue_after_the_time_out() -> None:
    flight = waiting(1)
    assert not flight.overdue(ACK_TIMEOUT_S - 1, stalled_s=1e9)
    assert flight.overdue(ACK_TIMEOUT_S + 1, stalled_s=1e9)


def test_while_bytes_still_move_it_is_only_slow() -> None:
    assert not waiting(1).overdue(1000.0, stalled_s=2.0)


def test_an_acknowledgement_before_it_is_progress() -> None:
    flight = waiting(1, 2)
    flight.acknowledged(1, 100.0)
    assert not flight.overdue(100.0 + ACK_TIMEOUT_S - 1, stalled_s=1e9)
    assert flight.overdue(100.0 + ACK_TIMEOUT_S + 1, stalled_s=1e9)


def test_a_lost_puback_is_overdue_however_well_the_later_ones_flow() -> None:
    """The bytes of the first have long arrived: later ones were acknowledged."""
    flight = waiting(1, 2)
    flight.acknowledged(2, 10.0)
    for serial in range(3, 100):
        flight.add(serial, batch(500), 10.0 + serial)
        flight.acknowledged(serial, 10.0 + serial)
    assert flight.overdue(10.0 + ACK_TIMEOUT_S + 1, stalled_s=0.0)


def test_what_is_on_its_way_is_remembered_without_its_texts() -> None:
    """Ids that follow one another are two numbers: a full window of short records would be megabytes."""
    made = Batch(60_000)
    for number in range(1, 1001):
        made.add(Stream.DATA, (number, 1, 0, b'{"ts":%d,"values":{"n":1}}' % number))
    made.add(Stream.OWN, (2000, 1, 1, b'{"ts":1,"values":{}}'))
    made.add(Stream.OWN, (2002, 1, 1, b'{"ts":2,"values":{}}'))
    published = made.published()
    assert published.deliveries == (
        Delivery(Stream.DATA, range(1, 1001), False),
        Delivery(Stream.OWN, [2000, 2002], True),
    )
    assert (published.rows, published.size, published.sample) == (1002, made.size, b'[{"ts":1,"values":{"n":1}}]')
    assert published.keys() == made.keys()
