"""From the outbox to the server: arrays of stored JSON, a window of unacknowledged publishes, marked on PUBACK.

Nothing is parsed or encoded here: the archive's texts are joined. A connection that ends forgets the flight; the rows
are still in the outbox and go again, with the same ts, so the server stores them once. Closes that a payload may have
caused are handled by `teg/domain/telemetry/poison_messages.py`.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

from teg.domain.concurrency import WorkSignal
from teg.domain.errors import NotConnected
from teg.domain.ports import Clock, Session
from teg.domain.server import MAX_UNACKNOWLEDGED, PROBE, TELEMETRY, Pacer
from teg.domain.telemetry.poison_messages import PoisonMessages
from teg.domain.telemetry.ports import Delivery, Outbox, Stream

logger = logging.getLogger("gateway.publishing")

#: Of the 20 unacknowledged publishes allowed, eight are left for answers and attributes, also on a slow server.
WINDOW = MAX_UNACKNOWLEDGED - 8
MARK_AFTER = WINDOW // 2
READ_ROWS = 2000
READ_BYTES = 4 * 60_000
IDLE_TIMEOUT_S = 5.0
#: A PUBACK may take 30 s on a slow server; after this the link is given up and everything unmarked goes again.
ACK_TIMEOUT_S = 45.0


class Link(Session, Protocol):
    """The session as the publisher needs it: it may also be given up."""

    @property
    def closed_by_peer(self) -> bool:
        """True when the last session was closed by the other side (not by us, a time-out or a dead link)."""
        ...

    def give_up(self, reason: str) -> None:
        """End this connection now; a new one follows."""
        ...

    def reconnect_now(self) -> None:
        """Make the next connection after the shortest wait instead of the growing one."""
        ...


Row = tuple[int, int, int, bytes]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one publish carries."""

    delivery: Delivery
    points: int
    payload: bytes


class Publisher:
    """Drains the outbox while there is a session; one thread at a time."""

    def __init__(self, outbox: Outbox, link: Link, clock: Clock, idle_timeout_s: float = IDLE_TIMEOUT_S) -> None:
        self.signal = WorkSignal()
        self.pacer = Pacer()
        self._outbox = outbox
        self._link = link
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._poison = PoisonMessages()
        self._lines = {lane: _Line(lane, outbox) for lane in Stream}
        self._turn = Stream.DATA
        self._flight: dict[int, tuple[Batch, float]] = {}
        self._results: SimpleQueue[tuple[int, int, bool]] = SimpleQueue()
        self._acknowledged: list[Delivery] = []
        self._epoch = 0
        self._serial = 0

    def run(self, stopping: Callable[[], bool]) -> None:
        """Publish until nothing is left, then linger for more; returns at once when another thread is at it.

        Raises:
            NotConnected: there is no session (any more); what was not acknowledged is still in the outbox.
            Unavailable: the archive cannot be read or marked now.
        """
        with self.signal.draining() as mine:
            if not mine:
                return
            self._begin()
            self._drain(stopping)

    def _drain(self, stopping: Callable[[], bool]) -> None:
        gave_up = False  # a wait in vain lets go of the bell: the next publisher may be at work on this state already
        try:
            while not stopping() and not gave_up:
                gave_up = not self._step()
            if not gave_up:
                self._land()
        finally:
            if not gave_up:
                self._mark()

    def _begin(self) -> None:
        self._mark()  # what the archive could not mark the last time would be sent and counted twice
        self._flight.clear()
        self._epoch = self._link.epoch
        for line in self._lines.values():
            line.rewind()

    def _step(self) -> bool:
        """Send one batch, or wait for an acknowledgement, or for work. False: there was none for a while."""
        self._collect(0.0)
        self._check_link()
        if len(self._flight) + len(self._acknowledged) < self._window() and (batch := self._next_batch()):
            self._send(batch)
            return True
        if self._flight:
            self._collect(1.0)
            return True
        if self._acknowledged:
            self._mark()
            return True
        self._poison.clear()  # whatever was suspect has left the outbox
        self._lines[Stream.REPUBLISH].rewind()  # older rows may have been marked behind the reading position
        return self.signal.wait(self._idle_timeout_s)

    def _window(self) -> int:
        return 1 if self._poison.active else WINDOW

    def _check_link(self) -> None:
        if not self._link.connected or self._link.epoch != self._epoch:
            self._lost()
            raise NotConnected("the connection ended; what was not acknowledged goes again")
        oldest = min((sent_s for _, sent_s in self._flight.values()), default=None)
        if oldest is not None and self._clock.monotonic_s() - oldest > ACK_TIMEOUT_S:
            self._link.give_up(f"no PUBACK for {ACK_TIMEOUT_S:.0f} s")
            raise NotConnected("the server does not acknowledge")

    def _lost(self) -> None:
        """Remember what was in flight when the other side closed: one of these may be the reason."""
        while not self._results.empty():
            self._collect(0.0)
        if not self._flight or not self._link.closed_by_peer:
            return
        batches = [batch.delivery for batch, _ in self._flight.values()]
        verdict = self._poison.closed([(batch.lane, tuple(batch.ids)) for batch in batches])
        if self._poison.hopeful:
            self._link.reconnect_now()
        if verdict is not None:
            lane, record_id = verdict
            self._outbox.set_aside(lane, record_id, "the server closes the connection whenever this record is sent")
            logger.error("record %d set aside: the server closed the connection on it again and again", record_id)

    def _next_batch(self) -> Batch | None:
        max_rows = self._poison.max_rows
        for lane in self._order():
            max_points = self.pacer.limits.max_points
            batch = self._lines[lane].cut(self.pacer.limits.max_payload_bytes, max_points, max_rows)
            if batch is not None:
                self._turn = Stream.REPUBLISH if lane == Stream.DATA else Stream.DATA
                return batch
        return None

    def _order(self) -> tuple[Stream, ...]:
        """Own reports first; data and republished rows take turns, so neither waits for the other's backlog."""
        if self._turn == Stream.DATA or self._poison.active:
            return (Stream.OWN, Stream.DATA, Stream.REPUBLISH)
        return (Stream.OWN, Stream.REPUBLISH, Stream.DATA)

    def _send(self, batch: Batch) -> None:
        if self._poison.wants_probe:
            self._link.deliver(TELEMETRY, PROBE)  # acknowledged: the server is well, so the next close is the record's
            self._poison.probed()
        self._pace(batch.points)
        self._serial += 1
        self._flight[self._serial] = (batch, self._clock.monotonic_s())
        self._link.publish(TELEMETRY, batch.payload, partial(self._done, self._epoch, self._serial))

    def _pace(self, points: int) -> None:
        while (wait_s := self.pacer.wait_s(self._clock.monotonic_s(), points)) > 0:
            self._collect(min(wait_s, 1.0))
            self._check_link()
        self.pacer.sent(points)

    def _done(self, epoch: int, serial: int, acknowledged: bool) -> None:
        """Network thread: only hand over."""
        self._results.put((epoch, serial, acknowledged))

    def _collect(self, timeout_s: float) -> None:
        """Take acknowledgements, waiting up to `timeout_s` for the first one."""
        try:
            result = self._results.get(timeout=timeout_s) if timeout_s else self._results.get_nowait()
            while True:
                self._take(*result)
                result = self._results.get_nowait()
        except Empty:
            pass
        if len(self._acknowledged) >= MARK_AFTER:
            self._mark()

    def _take(self, epoch: int, serial: int, acknowledged: bool) -> None:
        if epoch != self._epoch or not acknowledged or serial not in self._flight:
            return
        batch, _ = self._flight.pop(serial)
        self._acknowledged.append(batch.delivery)
        self._poison.passed((batch.delivery.lane, tuple(batch.delivery.ids)))

    def _mark(self) -> None:
        if self._acknowledged:
            self._outbox.mark_published(self._acknowledged)
            self._acknowledged = []

    def _land(self) -> None:
        """Before a stop: give the flight a moment to be acknowledged, so that less goes twice."""
        deadline_s = self._clock.monotonic_s() + 3.0
        while self._flight and self._link.connected and self._clock.monotonic_s() < deadline_s:
            self._collect(0.2)


class _Line:
    """One lane of the outbox, read ahead and cut into payloads."""

    def __init__(self, lane: Stream, outbox: Outbox) -> None:
        self._lane = lane
        self._outbox = outbox
        self.rewind()

    def rewind(self) -> None:
        self._rows: deque[Row] = deque()
        self._after_id = 0

    def cut(self, max_bytes: int, max_points: int | None, max_rows: int | None) -> Batch | None:
        """The next rows that fit into one publish; at least one. None when the lane has nothing new."""
        if not self._rows:
            self._read()
        size, points = 2, 0
        taken: list[Row] = []
        while self._rows and (max_rows is None or len(taken) < max_rows):
            row = self._rows[0]
            size += len(row[3]) + 1
            points += row[1]
            if taken and (size > max_bytes or (max_points is not None and points > max_points)):
                break
            taken.append(self._rows.popleft())
        return _batch(self._lane, taken) if taken else None

    def _read(self) -> None:
        rows = self._outbox.pending(self._lane, self._after_id, READ_ROWS, READ_BYTES)
        if rows:
            self._rows.extend(rows)
            self._after_id = rows[-1][0]


def _batch(lane: Stream, rows: list[Row]) -> Batch:
    delivery = Delivery(lane, [row[0] for row in rows], any(row[2] for row in rows))
    return Batch(delivery, sum(row[1] for row in rows), b"[" + b",".join([row[3] for row in rows]) + b"]")
