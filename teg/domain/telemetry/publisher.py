"""From the outbox to the server: arrays of stored JSON, a window of unacknowledged publishes, marked on PUBACK.

Nothing is parsed or encoded here: the archive's texts are joined. A connection that ends forgets what was in flight;
the rows are still in the outbox and go again, with the same ts, so the server stores them once. So does what was
acknowledged and not proven to be stored (`storage_proof.py`). What goes when: `backlog.py`. How much at once:
`in_flight.py`. Closes that a payload may have caused: `poison_messages.py`.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from teg.domain.concurrency import WorkSignal
from teg.domain.errors import NotConnected
from teg.domain.ports import Clock, Session
from teg.domain.server import OnTheWay, Pacer, addressed_to
from teg.domain.telemetry.backlog import Backlog, Batch, DrainRate
from teg.domain.telemetry.clock_steps import ClockSteps
from teg.domain.telemetry.gathering import Gathering
from teg.domain.telemetry.in_flight import ACK_TIMEOUT_S, WINDOW, DeliveryMarks, InFlight
from teg.domain.telemetry.poison_messages import PoisonMessages
from teg.domain.telemetry.ports import Outbox, Stream
from teg.domain.telemetry.thinning import DecidedRows, Thinner

logger = logging.getLogger("gateway.publisher")

MARK_AFTER = WINDOW // 2
#: Acknowledged rows are marked together: when there are so many publishes of them, when no more came for a while, or
#: when this long has passed since the last mark.
MARK_WITHIN_S, MARK_QUIET_S = 10.0, 2.0
IDLE_TIMEOUT_S = 5.0


class Link(Session, Protocol):
    """The session as the publisher needs it: it may also be given up."""

    @property
    def closed_by_peer(self) -> bool:
        """True when the last session was closed by the other side (not by us, a time-out or a dead link)."""
        ...

    def stalled_s(self) -> float:
        """Seconds since the last byte that we wrote left this machine's buffers."""
        ...

    def give_up(self, reason: str) -> None:
        """End this connection now; a new one follows."""
        ...

    def reconnect_now(self) -> None:
        """Make the next connection after the shortest wait instead of the growing one."""
        ...

    def works(self) -> None:
        """The server has acknowledged a record: the next connection need not wait long."""
        ...


class Publisher:
    """Drains the outbox while there is a session; one thread at a time."""

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        clock: Clock,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        pacer: Pacer | None = None,
        scaled: Callable[[bytes], bytes] | None = None,
        device: str = "",
        clock_steps: ClockSteps | None = None,
        marks: DeliveryMarks | None = None,
        thinner: Thinner | None = None,
        gathering: Gathering | None = None,
    ) -> None:
        """`device` is another one's name, in whose place a gateway's session speaks; empty: the session's own."""
        self._clock_steps = clock_steps
        self._maybe_sent: set[int] = set()
        self.signal = WorkSignal()
        self.pacer = pacer or Pacer()
        self._outbox = outbox
        self._device = device
        self._link = link
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._poison = PoisonMessages()
        self._thinner = thinner
        self._gathering = gathering or Gathering()
        self._backlog = Backlog(outbox if thinner is None else DecidedRows(outbox, thinner), scaled)
        self._flight = InFlight()
        self._rate = DrainRate()
        self._results: SimpleQueue[tuple[int, int, bool]] = SimpleQueue()
        self._marks = DeliveryMarks(outbox) if marks is None else marks
        self._marked_s = 0.0
        self._epoch = 0
        self._begun_epoch = 0
        self._serial = 0
        self._look_again = self._told_of_more = False

    @property
    def begun_epoch(self) -> int:
        return self._begun_epoch

    @property
    def acknowledged_bytes(self) -> int:
        return self._marks.marked_bytes

    @property
    def acknowledged_publishes(self) -> int:
        return self._marks.marked_publishes

    def latency(self) -> tuple[int, float]:
        """How many publishes were acknowledged so far, and the seconds from publish to PUBACK of them together."""
        return self.acknowledged_publishes, self._flight.acknowledged_after_s

    def read_again(self) -> None:
        """Rows were put into the outbox behind the reading position."""
        self._look_again = True
        self.signal.notify()

    def summary(self) -> Mapping[str, Any]:
        """For `status`: what the link carries, and what is in the way."""
        now_s = self._clock.monotonic_s()
        return {
            "rows_per_s": round(self._rate.rows_per_s(now_s), 1),
            "backlog_rows_per_s": round(self._rate.old_per_s(now_s), 1),
            "window_bytes": self._flight.capacity.window_bytes,
            "server_refuses_everything": self._poison.refusing,
        }

    def run(self, stopping: Callable[[], bool]) -> None:
        """Publish until nothing is left, then wait a little for more; returns at once when another thread is at it.

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
        gave_up = False  # a wait in vain lets go of the signal: the next publisher may be at work on this state already
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
        if self._flight:  # the last connection's: the server may have these
            self._maybe_sent = set().union(*(delivery.ids for batch in self._flight for delivery in batch.deliveries))
        self._flight.clear()
        self._epoch = self._link.epoch
        if self._epoch != self._begun_epoch:
            self._begin_connection()
        self._rewind()

    def _begin_connection(self) -> None:
        rows = self._outbox.connection_ended()
        if rows:
            logger.info(
                "%d records were acknowledged and not proven stored when the connection ended: sent again", rows
            )
        self._begun_epoch = self._epoch

    def _rewind(self) -> None:
        self._look_again = False
        self._backlog.rewind()

    def _step(self) -> bool:
        """Send one batch, or wait for an acknowledgement, or for work. False: there was none for a while."""
        self._collect(0.0)
        self._check_link()
        if self._clock_steps is not None and self._clock_steps.due:
            return self._move_first(self._clock_steps)
        if self._thinner is not None and self._thinner.decide():
            return self._decided()
        if batch := self._next_to_send():
            self._told_of_more = False
            self._send(batch)
            return True
        if self._flight:
            self._collect(1.0)
            return True
        if self._marks:
            self._look_again = self._look_again or self._told_of_more  # told, and nothing found: it lies behind
            self._told_of_more = not self._look_again and self._more_came()
            if not self._told_of_more:
                self._mark()
            return True
        if self._look_again:
            self._rewind()
            return True
        self._rewind()  # rows may have been put behind the reading position
        return self.signal.wait(self._idle_timeout_s)

    def _move_first(self, clock_steps: ClockSteps) -> bool:
        """Nothing is sent that is known to have a wrong time."""
        if self._flight:
            self._collect(1.0)
        else:
            self._mark()
            if self._thinner is not None:
                self._thinner.close_all()
            clock_steps.apply(self._maybe_sent)
            self._rewind()
        return True

    def _decided(self) -> bool:
        """What was decided before anything is sent is a backlog, as if it had waited like this."""
        self._told_of_more = False
        if not self._flight and not self._marks:
            self._rewind()
        return True

    @property
    def due(self) -> bool:
        """Is there something to do although no record came?"""
        return self._gathering.due(self._clock.monotonic_s()) or (self._thinner is not None and self._thinner.due)

    @property
    def postponed(self) -> bool:
        """A record came; is it gathered for a later message? Then `due` says when it is time."""
        return self._gathering.postponed(self._clock.monotonic_s())

    def _next_to_send(self) -> Batch | None:
        if not self._may_send():
            return None
        now_s = self._clock.monotonic_s()
        if not self._poison.active and not self._gathering.open(now_s):
            return None
        batch = self._next_batch()
        self._gathering.gave(batch is not None, now_s)
        return batch

    def _more_came(self) -> bool:
        """Acknowledged rows are marked together with the next ones, if these come soon; a mark costs a write."""
        left_s = self._marked_s + MARK_WITHIN_S - self._clock.monotonic_s()
        return left_s > 0 and self.signal.notified(min(left_s, MARK_QUIET_S, self._idle_timeout_s))

    def _may_send(self) -> bool:
        """Suspects go alone; a wish to read anew waits until nothing is on its way that would go twice."""
        if self._look_again or len(self._flight) + self._marks.publishes >= WINDOW:
            return False
        return not self._flight if self._poison.active else self._flight.room

    def _check_link(self) -> None:
        if not self._link.connected or self._link.epoch != self._epoch:
            self._lost()
            raise NotConnected("the connection ended; what was not acknowledged goes again")
        now_s = self._clock.monotonic_s()
        if self._flight.overdue(now_s, self._link.stalled_s()):
            self._flight.capacity.slow_down(now_s)
            self._link.give_up(f"no PUBACK for {ACK_TIMEOUT_S:.0f} s")
            raise NotConnected("the server does not acknowledge")

    def _lost(self) -> None:
        """Remember what was in flight when the other side closed: one of these may be the reason."""
        while not self._results.empty():
            self._collect(0.0)
        if not self._link.closed_by_peer:
            self._flight.capacity.slow_down(self._clock.monotonic_s())
            return
        if not self._flight:
            return
        culprit = self._poison.closed([batch.keys() for batch in self._flight])
        if self._poison.hopeful:
            self._link.reconnect_now()
        if self._poison.refusing:
            logger.warning("the server closes the connection on every record: nothing is set aside, and it is let rest")
        if culprit is not None:
            self._set_aside(*culprit)

    def _set_aside(self, stream: Stream, record_id: int) -> None:
        self._outbox.set_aside(stream, record_id, "the server closes the connection whenever this record is sent")
        logger.error("record %d set aside: the server closed the connection on it again and again", record_id)

    def _next_batch(self) -> Batch | None:
        limits = self.pacer.limits
        if self._poison.active:
            return self._next_suspects(limits.max_payload_bytes)
        max_bytes = min(limits.max_payload_bytes, self._flight.capacity.payload_bytes)
        return self._backlog.cut(max_bytes, limits.max_points, self._poison.held)

    def _next_suspects(self, max_bytes: int) -> Batch | None:
        while self._poison.active:
            batch = self._backlog.fetch(self._poison.group, max_bytes)
            self._poison.present(batch.keys())
            if not batch.empty:
                return batch
        self._look_again = True
        return None

    def _send(self, batch: Batch) -> None:
        if self._poison.wants_probe:
            self._probe()
        self._pace(batch.points)
        self._serial += 1
        self._flight.add(self._serial, batch.published(), self._clock.monotonic_s())
        topic, payload = addressed_to(self._device, batch.payload())
        counted = OnTheWay(self.pacer, self._clock.monotonic_s, batch.points)
        try:
            self._link.publish(topic, payload, partial(self._done, counted, self._epoch, self._serial))
        except NotConnected:
            counted.arrived()
            raise

    def _probe(self) -> None:
        """Acknowledged: the server is well, so the next close is the record's."""
        try:
            self._link.deliver(*addressed_to(self._device, self._poison.probe))
        except NotConnected:
            self._poison.probed(acknowledged=False)
            raise
        self._poison.probed(acknowledged=True)

    def _pace(self, points: int) -> None:
        while (wait_s := self.pacer.take(self._clock.monotonic_s(), points)) > 0:
            self._collect(min(wait_s, 1.0))
            self._check_link()

    def _done(self, counted: OnTheWay, epoch: int, serial: int, acknowledged: bool) -> None:
        """Network thread: only hand over."""
        counted.arrived()
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
        if self._marks.publishes >= MARK_AFTER:
            self._mark()

    def _take(self, epoch: int, serial: int, acknowledged: bool) -> None:
        if epoch != self._epoch or not acknowledged:
            return
        now_s = self._clock.monotonic_s()
        batch = self._flight.acknowledged(serial, now_s)
        if batch is None:
            return
        self._link.works()
        self._marks.add(batch.deliveries, batch.size)
        self._rate.add(now_s, batch.rows, batch.old)
        searching = self._poison.active
        for culprit in self._poison.passed(batch.keys(), batch.sample):
            self._set_aside(*culprit)
        if searching and not self._poison.active:
            self._look_again = True  # the suspects were read out of turn

    def _mark(self) -> None:
        self._marked_s = self._clock.monotonic_s()
        self._marks.write()

    def _land(self) -> None:
        """Before a stop: give the flight a moment to be acknowledged, so that less goes twice."""
        deadline_s = self._clock.monotonic_s() + 3.0
        while self._flight and self._link.connected and self._clock.monotonic_s() < deadline_s:
            self._collect(0.2)
