"""What was published and not acknowledged yet, and how much of that the link carries; what is acknowledged and not
marked yet.

Payload and window follow the link. A fast one gets twelve arrays of 60 kB at a time; a slow one only as much as leaves
within about two seconds, because MQTT writes in order: an answer to a call waits behind all that was written before it.
Seen is the time from publish to PUBACK: what it grows beyond its least value is time spent waiting in a queue.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from teg.domain.server import MAX_PAYLOAD_BYTES, MAX_UNACKNOWLEDGED
from teg.domain.telemetry.backlog import Published
from teg.domain.telemetry.ports import Delivery, Outbox

#: Of the 20 unacknowledged publishes allowed, eight are left for answers and attributes, also on a slow server.
WINDOW = MAX_UNACKNOWLEDGED - 8
#: A PUBACK may take 30 s on a slow server; after this without any sign of progress the link is given up.
ACK_TIMEOUT_S = 45.0

START_BYTES, LEAST_BYTES, MOST_BYTES = 3_000, 1_000, WINDOW * MAX_PAYLOAD_BYTES
#: Publishes that should share the window: an array is no larger than this part of it.
PARTS = 3
#: Waiting in queues up to the first is no reason to slow down, beyond the second it is (seconds).
QUEUE_OK_S, QUEUE_LONG_S = 1.0, 2.5
#: The least latency is measured again after so many seconds, and so many times itself: links and servers change.
MEMORY_S, MEMORY_LATENCIES = 60.0, 15


class LinkCapacity:
    """How many bytes may be on their way, and how many in one publish."""

    def __init__(self) -> None:
        self.window_bytes = START_BYTES
        #: True while nothing more is sent, so that the next publish goes alone and shows the link's own latency.
        self.emptying = False
        self._slowed_s = 0.0
        self._least_s: float | None = None
        self._measured_s = 0.0

    @property
    def payload_bytes(self) -> int:
        return max(LEAST_BYTES, min(MAX_PAYLOAD_BYTES, self.window_bytes // PARTS))

    def acknowledged(self, sent: "_Sent", now_s: float) -> None:
        """Only when the window was in use does a publish that came through say that more would."""
        latency_s = now_s - sent.sent_s
        if sent.alone or self._least_s is None:
            self._least_s, self._measured_s = latency_s, now_s
        self._least_s = min(self._least_s, latency_s)
        queued_s = latency_s - self._least_s
        if queued_s > QUEUE_LONG_S and sent.sent_s >= self._slowed_s:
            self.slow_down(now_s)
        elif queued_s < QUEUE_OK_S and sent.full:
            self.window_bytes = min(MOST_BYTES, self.window_bytes + sent.batch.size)
        elif queued_s >= QUEUE_OK_S and now_s - self._measured_s > max(MEMORY_S, MEMORY_LATENCIES * self._least_s):
            self.emptying = True

    def slow_down(self, now_s: float) -> None:
        """Half as much; what was sent before does not count against the new window."""
        self.window_bytes = max(LEAST_BYTES, self.window_bytes // 2)
        self._slowed_s = now_s


@dataclass(slots=True)
class _Sent:
    batch: Published
    sent_s: float
    full: bool
    alone: bool


class InFlight:
    """Publishes by their serial number, first to last."""

    def __init__(self) -> None:
        self.capacity = LinkCapacity()
        self.acknowledged_after_s = 0.0  #: from publish to PUBACK, of all publishes so far together
        self._sent: dict[int, _Sent] = {}
        self._bytes = 0
        self._progress_s = 0.0
        self._overtaken_s: float | None = None

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[Published]:
        return iter([sent.batch for sent in self._sent.values()])

    def clear(self) -> None:
        self._sent.clear()
        self._bytes = 0
        self._overtaken_s = None

    @property
    def room(self) -> bool:
        """May another publish go? One always may: a record can be larger than the whole window."""
        if not self._sent:
            return True
        return len(self._sent) < WINDOW and self._bytes < self.capacity.window_bytes and not self.capacity.emptying

    def add(self, serial: int, batch: Published, now_s: float) -> None:
        self._bytes += batch.size
        full = self._bytes + self.capacity.payload_bytes > self.capacity.window_bytes or len(self._sent) >= WINDOW - 1
        self._sent[serial] = _Sent(batch, now_s, full, alone=not self._sent)
        self.capacity.emptying = False

    def acknowledged(self, serial: int, now_s: float) -> Published | None:
        oldest = next(iter(self._sent), None)
        sent = self._sent.pop(serial, None)
        if sent is None:
            return None
        self._bytes -= sent.batch.size
        self.acknowledged_after_s += now_s - sent.sent_s
        self.capacity.acknowledged(sent, now_s)
        if serial == oldest:
            self._progress_s, self._overtaken_s = now_s, None
        elif self._overtaken_s is None:
            self._overtaken_s = now_s  # TCP keeps the order: the older ones are past the link, their PUBACKs are due
        return sent.batch

    def overdue(self, now_s: float, stalled_s: float) -> bool:
        """True when the oldest should have been acknowledged. `stalled_s`: since when no byte has left.

        While bytes still move it is only slow, unless a later publish was acknowledged already.
        """
        oldest = next(iter(self._sent.values()), None)
        if oldest is None:
            return False
        since_s = max(oldest.sent_s, self._progress_s)
        if self._overtaken_s is None:
            return min(now_s - since_s, stalled_s) > ACK_TIMEOUT_S
        return now_s - max(since_s, self._overtaken_s) > ACK_TIMEOUT_S


class DeliveryMarks:
    """Acknowledged rows on their way to being marked: gathered, because a mark costs a write; written before a look.

    Whoever counts the outbox, or changes what it means to wait in it, calls `write` first, and sees the state of now.
    One for an outbox; usable from any thread. What could not be written is kept for the next try.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._writing = threading.Lock()
        self._gathered: list[Delivery] = []
        self._publishes = self._bytes = 0
        self.marked_publishes = self.marked_bytes = 0  #: since the start; a proof begins with what is marked

    def __bool__(self) -> bool:
        return bool(self._gathered)

    @property
    def publishes(self) -> int:
        """Acknowledged and not marked yet."""
        return self._publishes

    def add(self, deliveries: Sequence[Delivery], size: int) -> None:
        """One acknowledged publish of `size` bytes."""
        with self._writing:
            self._gathered += deliveries
            self._publishes += 1
            self._bytes += size

    def write(self) -> None:
        """Mark what is gathered; when it returns all that was added before is marked, by whomever.

        Raises:
            Unavailable: the outbox cannot be written now.
        """
        with self._writing:
            if not self._gathered:
                return
            self._outbox.mark_published(self._gathered)
            self.marked_publishes += self._publishes
            self.marked_bytes += self._bytes
            self._gathered, self._publishes, self._bytes = [], 0, 0
