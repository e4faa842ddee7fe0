"""Token buckets: for the limits we set, and for the server's, to stay below them instead of being cut off.

ThingsBoard answers the client RPC `getSessionLimits`; exceeding a limit closes the session without a word, and a batch
with more data points than the bucket holds can never pass (thingsboard `DefaultTransportRateLimitService`).
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from teg.domain.limits import MAX_PAYLOAD_BYTES
from teg.domain.ports import Clock
from teg.domain.server.wire import ATTRIBUTES, TELEMETRY

#: Share of each bucket that we use: the server's clock is not ours, and others may count for the same device.
SHARE = 0.8
#: Share of each refill that we use.
REFILL = 0.985
_RATES = re.compile(r"(\d{1,9}):(\d{1,9})")


@dataclass(slots=True)
class Bucket:
    """At most `capacity` tokens, refilled at `per_s`; `level` of them are there at `at_s` (monotonic). One thread."""

    capacity: float
    per_s: float
    level: float
    at_s: float

    def wait_s(self, now_s: float, tokens: int = 1, reserved: int = 0) -> float:
        """Seconds until `tokens` are there beside `reserved` ones; more than the bucket holds count as all it holds."""
        self.refill(now_s)
        return max(0.0, (min(tokens, self.capacity) + reserved - self.level) / self.per_s)

    def take(self, tokens: int = 1) -> None:
        """Take them whether they are there or not: what was spent was spent."""
        self.level -= tokens

    def refill(self, now_s: float) -> None:
        self.level = min(self.capacity, self.level + max(0.0, now_s - self.at_s) * self.per_s)
        self.at_s = now_s


class TokenBucket:
    """Holds `burst` tokens, refilled at `per_s`; safe for several threads."""

    def __init__(self, clock: Clock, per_s: float, burst: int) -> None:
        self._clock = clock
        self._bucket = Bucket(burst, per_s, burst, clock.monotonic_s())
        self._lock = threading.Lock()

    def take(self) -> bool:
        """False when there is no token now; nothing waits."""
        with self._lock:
            if self._bucket.wait_s(self._clock.monotonic_s()) > 0:
                return False
            self._bucket.take()
            return True


@dataclass(frozen=True, slots=True)
class Rate:
    """`capacity` tokens, refilled evenly over `seconds`."""

    capacity: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one device may do; empty tuples mean no limit.

    `messages` counts what carries no data point (connect, subscribe, requests, answers), `telemetry` the messages with
    some (telemetry and attributes), `points` those data points.
    """

    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    messages: tuple[Rate, ...] = ()
    telemetry: tuple[Rate, ...] = ()
    points: tuple[Rate, ...] = ()

    @property
    def max_points(self) -> int | None:
        """Data points one publish may carry at most: half a bucket, so that one fills while the other is on its way."""
        return min((max(1, int(rate.capacity * SHARE / 2)) for rate in self.points), default=None)


def parse_limits(answer: Mapping[str, Any]) -> Limits:
    """Read the answer to `getSessionLimits`; whatever is missing or odd means 'no limit known'."""
    rates = answer.get("rateLimits")
    rates = rates if isinstance(rates, dict) else {}
    payload = answer.get("maxPayloadSize")
    # The server compares the whole packet: topic, packet id and header come on top of the payload.
    room = payload - 512 if isinstance(payload, int) and payload > 1024 else MAX_PAYLOAD_BYTES
    return Limits(
        max_payload_bytes=min(MAX_PAYLOAD_BYTES, room),
        messages=_rates(rates.get("messages")),
        telemetry=_rates(rates.get("telemetryMessages")),
        points=_rates(rates.get("telemetryDataPoints")),
    )


def _rates(text: Any) -> tuple[Rate, ...]:
    if not isinstance(text, str):
        return ()
    found = (Rate(int(capacity), int(seconds)) for capacity, seconds in _RATES.findall(text))
    return tuple(rate for rate in found if rate.capacity and rate.seconds)


#: So long a session waits for the answer before it takes silence for "no limits", whatever became of the question.
UNKNOWN_S = 8.0
#: How often whoever waits for the limits looks again.
LOOK_AGAIN_S = 0.1
#: Less than this is no wait but a rounding error, and waiting for it would never end.
INSTANT_S = 1e-6


def data_points(topic: str, payload: bytes) -> int:
    """What the server counts: the keys of telemetry and attributes; everything else, and `{}`, is a plain message."""
    if topic not in (TELEMETRY, ATTRIBUTES):
        return 0
    body = orjson.loads(payload)
    records = body if isinstance(body, list) else [body]
    return sum(len(record["values"]) if "values" in record and "ts" in record else len(record) for record in records)


class Pacer:
    """Token buckets for all that one device sends; safe for several threads. Times are monotonic seconds.

    The server counts a message when it reads it, and a link that stands still for a second hands on all of that second
    at once. So a message is *under way* from `take` until it is known to have been read (its acknowledgement, or the
    end of the connection). Until then its tokens are reserved, only then are they taken: whenever in between the server
    counts it, its buckets hold at least what ours do.

    The server's buckets belong to the device: a new connection does not fill them, so ours go on as well.
    """

    def __init__(self) -> None:
        self.limits = Limits()
        self._lock = threading.Lock()
        self._known = False
        self._unknown_until_s = 0.0
        self._messages = _Kind()
        self._telemetry = _Kind()
        self._points = _Kind()

    @property
    def known(self) -> bool:
        """True once the server was asked in this life, or the answer to an earlier one is remembered."""
        return self._known

    def counts_messages(self) -> bool:
        return bool(self.limits.messages)

    def asking(self, now_s: float) -> bool:
        """True from the first connect on until the answer, or until silence is taken for one."""
        return not self._known and now_s < self._unknown_until_s

    def connected(self, now_s: float) -> None:
        """A session was made; if the limits are not known yet, they are going to be asked for."""
        self._unknown_until_s = now_s + UNKNOWN_S

    def use(self, limits: Limits, now_s: float) -> None:
        """What the server answered, now or in an earlier life; the same as before changes nothing.

        Our buckets begin empty: an earlier life, or this one before it knew, may have spent all that we would use of
        the server's.
        """
        with self._lock:
            if limits == self.limits and self._known:
                return
            self._messages.buckets = [_bucket(rate, now_s) for rate in limits.messages]
            self._telemetry.buckets = [_bucket(rate, now_s) for rate in limits.telemetry]
            self._points.buckets = [_bucket(rate, now_s) for rate in limits.points]
            self.limits, self._known = limits, True

    def wait_to_connect_s(self, now_s: float, messages: int) -> float:
        """Seconds until there are tokens for a session's first so many messages."""
        with self._lock:
            return self._messages.wait_s(now_s, messages)

    def wait_s(self, now_s: float, points: int) -> float:
        """Seconds until a message with `points` data points (0: a plain one) is within the limits."""
        with self._lock:
            return self._wait_s(now_s, points)

    def take(self, now_s: float, points: int) -> float:
        """0.0: it may go, and is under way. Otherwise ask again after so many seconds."""
        with self._lock:
            wait_s = self._wait_s(now_s, points)
            if wait_s > INSTANT_S:
                return wait_s
            self._reserve(points, 1)
            return 0.0

    def sent(self, points: int, messages: int = 1) -> None:
        """They go whatever the limits say, and are under way."""
        with self._lock:
            self._reserve(points, messages)

    def arrived(self, now_s: float, points: int, messages: int = 1) -> None:
        """The server has counted them by now: call it once for each `take` and `sent`."""
        with self._lock:
            for kind, tokens in self._tokens(points, messages):
                kind.spend(now_s, tokens)

    def _wait_s(self, now_s: float, points: int) -> float:
        if self.asking(now_s):
            return LOOK_AGAIN_S
        return max(kind.wait_s(now_s, tokens) for kind, tokens in self._tokens(points, 1))

    def _reserve(self, points: int, messages: int) -> None:
        for kind, tokens in self._tokens(points, messages):
            kind.reserved += tokens

    def _tokens(self, points: int, messages: int) -> tuple[tuple["_Kind", int], ...]:
        """What so many messages, with `points` data points together, cost."""
        return ((self._telemetry, messages), (self._points, points)) if points else ((self._messages, messages),)


@dataclass(slots=True)
class _Kind:
    """One of the three things the server counts: its buckets, and what is under way."""

    buckets: list[Bucket] = field(default_factory=list)
    reserved: int = 0

    def wait_s(self, now_s: float, tokens: int) -> float:
        return max((bucket.wait_s(now_s, tokens, self.reserved) for bucket in self.buckets), default=0.0)

    def spend(self, now_s: float, tokens: int) -> None:
        self.reserved -= tokens
        for bucket in self.buckets:
            bucket.refill(now_s)
            bucket.take(tokens)


class OnTheWay:
    """One message from `Pacer.take` or `sent` on; counted as read by the server once, whoever says so first."""

    def __init__(self, pacer: Pacer, now_s: Callable[[], float], points: int = 0, messages: int = 1) -> None:
        self._pacer = pacer
        self._now_s = now_s
        self._left = (points, messages)
        self._once = threading.Lock()

    def arrived(self) -> None:
        if self._once.acquire(blocking=False):
            self._pacer.arrived(self._now_s(), *self._left)


def _bucket(rate: Rate, now_s: float) -> Bucket:
    """Our share of the rate, empty."""
    return Bucket(max(1.0, rate.capacity * SHARE), REFILL * rate.capacity / rate.seconds, 0.0, now_s)
