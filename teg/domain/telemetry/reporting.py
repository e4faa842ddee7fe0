"""What the gateway says about itself: own telemetry, client attributes, auxiliary values, log lines.

Everything but the auxiliary telemetry is kept until the server has acknowledged it, over restarts too.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import orjson

from teg.domain.concurrency import SingleFlight
from teg.domain.errors import NotConnected, Refused
from teg.domain.ports import AttributeSource, Clock, Controller, Heartbeat, Session
from teg.domain.server import ATTRIBUTES, MAX_PAYLOAD_BYTES, TELEMETRY, Pacer, encodable, encode_telemetry
from teg.domain.telemetry.ports import OwnRecords
from teg.domain.telemetry.waiting_report import WaitingReport

logger = logging.getLogger("gateway.reporting")

#: One log line on the wire: longer ones are cut.
MAX_LINE_CHARACTERS = 2048
MAX_WAITING_LINES = 1000
#: Log lines a minute that go to the server; the rest is counted and said in one line.
MAX_LINES_A_MINUTE = 60
AUXILIARY_TIMEOUT_S = 15.0
EARLY_S = 2.0
#: Client attributes up to this size are compared with the server's copy after a connect.
COMPARED_BYTES = 1024


class PendingAttributes(Protocol):
    def set(self, values: dict[str, bytes]) -> None: ...

    def pending(self) -> list[tuple[str, bytes, int]]: ...

    def mark(self, sent: list[tuple[str, int]]) -> None: ...

    def told(self) -> list[tuple[str, bytes]]: ...

    def tell_again(self, keys: Sequence[str] | None = None) -> None: ...


class Reporter:
    """`ports.Report`: durable first, then `stored` / `attributes_waiting` make it go."""

    def __init__(
        self,
        own: OwnRecords,
        pending: PendingAttributes,
        session: Session,
        clock: Clock,
        stored: Callable[[], None],
        attributes_waiting: Callable[[], None],
        pacer: Pacer | None = None,
        source: AttributeSource | None = None,
    ) -> None:
        self._source = source
        self._in_vain: dict[str, tuple[bytes, str]] = {}
        self._pacer = pacer or Pacer()
        self._own = own
        self._pending = pending
        self._session = session
        self._clock = clock
        self._stored = stored
        self._attributes_waiting = attributes_waiting
        #: Two workers could deliver an older value of a key after a newer one.
        self._sending = SingleFlight()

    def telemetry(self, values: Mapping[str, Any], ts_ms: int | None = None) -> None:
        ts_ms = self._clock.now_ms() if ts_ms is None else ts_ms
        self._own.store_own([(ts_ms, encode_telemetry(ts_ms, values))])
        self._stored()

    def attributes(self, values: Mapping[str, Any]) -> None:
        """
        Raises:
            Refused: a value is not JSON, or so large that the server would close the connection on it, every time.
        """
        self._pending.set({key: _encode_attribute(key, value) for key, value in values.items()})
        self._attributes_waiting()

    def publish_attributes(self) -> None:
        """Send every client attribute the server has not acknowledged, as few messages as the payload limit allows.

        Raises:
            Unavailable: no session, or no PUBACK; the rest stays pending.
        """
        self._sending.run(self._publish_pending)

    def tell_what_differs(self) -> None:
        """After a connect: what the server shows otherwise than it was told (a crash, a restored backup) goes again.

        Large values are left out, they cost as much to read as to tell; one that the server keeps in its own way is
        told again once.

        Raises:
            Unavailable: no session or no answer.
        """
        told = {key: value for key, value in self._pending.told() if len(value) <= COMPARED_BYTES and "," not in key}
        if self._source is None or not told:
            return
        shown, _ = self._source.request_attributes(client_keys=tuple(told))
        again = [key for key in differing(told, shown) if self._in_vain.get(key) != (told[key], repr(shown.get(key)))]
        self._in_vain = {key: (told[key], repr(shown.get(key))) for key in differing(told, shown)}
        if again:
            logger.info("the server shows other values than it was told, told again: %s", ", ".join(again))
            self._pending.tell_again(again)
            self._attributes_waiting()

    def _publish_pending(self) -> None:
        for group in _grouped(self._pending.pending(), self._pacer.limits.max_points):
            body = b",".join(orjson.dumps(key) + b":" + value for key, value, _ in group)
            self._session.deliver(ATTRIBUTES, b"{" + body + b"}")
            self._pending.mark([(key, change) for key, _, change in group])


def differing(told: Mapping[str, bytes], shown: Mapping[str, Any]) -> Sequence[str]:
    """Keys of client attributes whose value on the server is not what we told it."""
    return [key for key, value in told.items() if not _same(orjson.loads(value), shown.get(key))]


def _same(told: Any, shown: Any) -> bool:
    """Text that looks like a number comes back as that number (`"1.10"` as 1.1)."""
    if told == shown:
        return True
    if isinstance(told, str) and isinstance(shown, int | float) and not isinstance(shown, bool):
        try:
            return float(told) == shown
        except ValueError:
            return False
    return False


def _encode_attribute(key: str, value: Any) -> bytes:
    try:
        encoded = orjson.dumps(value)
        size = 2 + _size(key, encoded)
    except orjson.JSONEncodeError as error:
        raise Refused(f"client attribute {key!r} is not JSON: {error}") from error
    if size > MAX_PAYLOAD_BYTES:
        raise Refused(f"client attribute {key} of {len(encoded)} bytes does not fit into a message")
    return encoded


def _size(key: str, value: bytes) -> int:
    """Bytes of `"key":value,`."""
    return len(orjson.dumps(key)) + len(value) + 2


def _grouped(pending: list[tuple[str, bytes, int]], max_keys: int | None = None) -> list[list[tuple[str, bytes, int]]]:
    """Messages within the payload limit, and within the server's limit of values in one message."""
    groups: list[list[tuple[str, bytes, int]]] = []
    size = MAX_PAYLOAD_BYTES
    for item in pending:
        needed = _size(item[0], item[1])
        if size + needed > MAX_PAYLOAD_BYTES or len(groups[-1]) == max_keys:
            groups.append([])
            size = 2
        groups[-1].append(item)
        size += needed
    return groups


class Auxiliary:
    """`ms_since_controller_startup` and `ms_since_last_controller_health_check`, left out while there is none.

    And, when it has changed, what waits.
    """

    def __init__(
        self,
        session: Session,
        controller: Controller,
        heartbeat: Heartbeat,
        clock: Clock,
        waiting: WaitingReport | None = None,
        every_s: float = 0.0,
    ) -> None:
        self._every_s = every_s
        self._sent_s = float("-inf")
        self._waiting = waiting
        self._session = session
        self._controller = controller
        self._heartbeat = heartbeat
        self._clock = clock

    @property
    def due(self) -> bool:
        """Asked when the timetable has a turn for it, which may be a little early."""
        return self._session.connected and self._clock.monotonic_s() - self._sent_s >= self._every_s - EARLY_S

    def send(self) -> None:
        """Publish now or not at all: a late value of this kind says nothing.

        Raises:
            Unavailable: no session, no PUBACK, or inbox or archive cannot be read now.
        """
        if not self._session.connected:
            raise NotConnected("auxiliary telemetry is only sent while connected")
        now_ms, self._sent_s = self._clock.now_ms(), self._clock.monotonic_s()
        if values := self.values(now_ms):
            self._session.deliver(TELEMETRY, encode_telemetry(now_ms, values), AUXILIARY_TIMEOUT_S)
        if self._waiting is not None and (changed := self._waiting.changed(now_ms)):
            self._session.deliver(TELEMETRY, encode_telemetry(now_ms, changed), AUXILIARY_TIMEOUT_S)
            self._waiting.told(changed)

    def values(self, now_ms: int) -> dict[str, int]:
        moments = {
            "ms_since_controller_startup": self._controller.running_since_ms(),
            "ms_since_last_controller_health_check": self._heartbeat.last_heartbeat_ms(),
        }
        return {name: max(0, now_ms - moment) for name, moment in moments.items() if moment is not None}


class LogLines:
    """Log lines on their way to the server: bounded, rate-limited, and never the cause of more of themselves."""

    def __init__(self, own: OwnRecords, clock: Clock, stored: Callable[[], None]) -> None:
        self._own = own
        self._clock = clock
        self._stored = stored
        self._waiting: deque[tuple[int, str, str]] = deque()
        self._suppressed = 0
        self._minute = (0, 0)
        self._last_ts_ms = 0
        self._storing = threading.Lock()

    def add(self, ts_ms: int, severity: str, text: str) -> None:
        """Callable from any thread, at any moment, also while the archive is failing: it only remembers."""
        minute, lines = self._minute
        if minute != ts_ms // 60_000:
            minute, lines = ts_ms // 60_000, 0
        if lines >= MAX_LINES_A_MINUTE or len(self._waiting) >= MAX_WAITING_LINES:
            self._suppressed += 1
        else:
            self._waiting.append((ts_ms, severity, encodable(text[:MAX_LINE_CHARACTERS])))
            lines += 1
        self._minute = (minute, lines)

    @property
    def waiting(self) -> bool:
        return bool(self._waiting or self._suppressed)

    def store(self) -> None:
        """Move what waits into the outbox, durably; called every few seconds, and before the stop.

        Raises:
            Unavailable: the archive cannot be written now; the lines go on waiting.
        """
        with self._storing:  # two at a time would store lines twice and drop others
            self._store()

    def _store(self) -> None:
        if self._suppressed and self._minute[0] != self._clock.now_ms() // 60_000:
            suppressed, self._suppressed = self._suppressed, 0
            self._waiting.append((self._clock.now_ms(), "WARN", f"{suppressed} log lines were not sent (rate limit)"))
        lines = list(self._waiting)
        if lines:
            records = _log_records(lines, self._last_ts_ms)
            self._own.store_own(records)
            self._last_ts_ms = records[-1][0]
            for _ in lines:
                self._waiting.popleft()
            self._stored()


def _log_records(lines: list[tuple[int, str, str]], last_ts_ms: int) -> list[tuple[int, bytes]]:
    """Two lines of the same millisecond would overwrite each other on the server: time moves on by one.

    A clock that was set back by more than five seconds is believed; less is made up for by going on from the last.
    """
    records: list[tuple[int, bytes]] = []
    for ts_ms, severity, text in lines:
        last_ts_ms = max(ts_ms, last_ts_ms + 1) if ts_ms > last_ts_ms - 5_000 else ts_ms
        values = {"severity": severity, "message": f"GATEWAY - {text}"}
        records.append((last_ts_ms, encode_telemetry(last_ts_ms, values)))
    return records
