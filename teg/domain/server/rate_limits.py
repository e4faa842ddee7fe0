"""Token buckets: for the limits we set, and for the server's, to stay below them instead of being cut off.

ThingsBoard answers the client RPC `getSessionLimits`; exceeding a limit closes the session without a word, and a batch
with more data points than the bucket holds can never pass (thingsboard `DefaultTransportRateLimitService`).
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from teg.domain.ports import Clock
from teg.domain.server.wire import ATTRIBUTES, MAX_PAYLOAD_BYTES, TELEMETRY

#: Share of each bucket that we use at once: what was sent evenly may arrive in a heap.
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

    def wait_s(self, now_s: float, tokens: int = 1) -> float:
        """Seconds until `tokens` are there; more than the bucket holds count as all it holds."""
        self._refill(now_s)
        return max(0.0, (min(tokens, self.capacity) - self.level) / self.per_s)

    def take(self, tokens: int = 1) -> None:
        """Take them whether they are there or not: what was spent was spent."""
        self.level -= tokens

    def _refill(self, now_s: float) -> None:
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
        """Data points one publish may carry at most."""
        return min((max(1, int(rate.capacity * SHARE)) for rate in self.points), default=None)


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

    The server's buckets belong to the device: a new connection does not fill them, so ours go on as well.
    """

    def __init__(self) -> None:
        self.limits = Limits()
        self._lock = threading.Lock()
        self._known = False
        self._unknown_until_s = 0.0
        self._spent = _Spent()
        self._messages: list[Bucket] = []
        self._telemetry: list[Bucket] = []
        self._points: list[Bucket] = []

    @property
    def known(self) -> bool:
        """True once the server was asked in this life, or the answer to an earlier one is remembered."""
        return self._known

    def asking(self, now_s: float) -> bool:
        """True from the first connect on until the answer, or until silence is taken for one."""
        return not self._known and now_s < self._unknown_until_s

    def connected(self, now_s: float, messages: int) -> None:
        """A session was made, which took so many messages (CONNECT, SUBSCRIBE)."""
        with self._lock:
            self._unknown_until_s = now_s + UNKNOWN_S
            for _ in range(messages):
                self._take(0)

    def remember(self, limits: Limits, now_s: float) -> None:
        """Limits of an earlier life: half a bucket, because that life may have spent the rest."""
        self._use(limits, now_s, 0.5)

    def use(self, limits: Limits, now_s: float) -> None:
        """What the server answered; the same as before changes nothing. What this life has sent is spent."""
        if limits != self.limits or not self._known:
            self._use(limits, now_s, 1.0)

    def _use(self, limits: Limits, now_s: float, full: float) -> None:
        with self._lock:
            spent = self._spent
            self._messages = [_bucket(rate, now_s, full, spent.messages) for rate in limits.messages]
            self._telemetry = [_bucket(rate, now_s, full, spent.telemetry) for rate in limits.telemetry]
            self._points = [_bucket(rate, now_s, full, spent.points) for rate in limits.points]
            self.limits, self._known = limits, True

    def wait_to_connect_s(self, now_s: float, messages: int) -> float:
        """Seconds until there are tokens for a session's first so many messages."""
        with self._lock:
            return max((bucket.wait_s(now_s, messages) for bucket in self._messages), default=0.0)

    def wait_s(self, now_s: float, points: int) -> float:
        """Seconds until a message with `points` data points (0: a plain one) is within the limits."""
        with self._lock:
            return self._wait_s(now_s, points)

    def take(self, now_s: float, points: int) -> float:
        """0.0: it may go, and is counted. Otherwise ask again after so many seconds."""
        with self._lock:
            wait_s = self._wait_s(now_s, points)
            if wait_s > INSTANT_S:
                return wait_s
            self._take(points)
            return 0.0

    def sent(self, points: int) -> None:
        """It goes whatever the limits say, and is counted."""
        with self._lock:
            self._take(points)

    def _wait_s(self, now_s: float, points: int) -> float:
        if self.asking(now_s):
            return LOOK_AGAIN_S
        if not points:
            return max((bucket.wait_s(now_s, 1) for bucket in self._messages), default=0.0)
        waits = [bucket.wait_s(now_s, 1) for bucket in self._telemetry]
        waits += [bucket.wait_s(now_s, points) for bucket in self._points]
        return max(waits, default=0.0)

    def _take(self, points: int) -> None:
        self._spent.add(points)
        for bucket in self._telemetry if points else self._messages:
            bucket.take(1)
        for bucket in self._points:
            bucket.take(points)


@dataclass(slots=True)
class _Spent:
    """What this process has sent so far."""

    messages: int = 0
    telemetry: int = 0
    points: int = 0

    def add(self, points: int) -> None:
        self.points += points
        self.messages += not points
        self.telemetry += bool(points)


def _bucket(rate: Rate, now_s: float, full: float, spent: int) -> Bucket:
    """Our share of the rate, with what is left of it."""
    capacity = max(1.0, rate.capacity * SHARE)
    return Bucket(capacity, REFILL * rate.capacity / rate.seconds, max(0.0, capacity * full - spent), now_s)
