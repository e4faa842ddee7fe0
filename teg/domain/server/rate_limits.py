"""The server's rate limits, and how to stay below them instead of being cut off.

ThingsBoard answers the client RPC `getSessionLimits`; exceeding a limit closes the session without a word, and a batch
with more data points than the bucket holds can never pass (thingsboard `DefaultTransportRateLimitService`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from teg.domain.server.wire import MAX_PAYLOAD_BYTES
from teg.domain.token_bucket import Bucket

#: Share of each limit that we use; the rest is for RPC answers, attributes and clock differences.
SHARE = 0.8
_RATES = re.compile(r"(\d{1,9}):(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Rate:
    """`capacity` tokens, refilled evenly over `seconds`."""

    capacity: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may do; empty tuples mean no limit."""

    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    messages: tuple[Rate, ...] = ()
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
        messages=_rates(rates.get("messages")) + _rates(rates.get("telemetryMessages")),
        points=_rates(rates.get("telemetryDataPoints")),
    )


def _rates(text: Any) -> tuple[Rate, ...]:
    if not isinstance(text, str):
        return ()
    found = (Rate(int(capacity), int(seconds)) for capacity, seconds in _RATES.findall(text))
    return tuple(rate for rate in found if rate.capacity and rate.seconds)


#: Until the server has answered what it allows: enough for live data, too little to be cut off by any sane limit.
CAUTIOUS = Limits(messages=(Rate(10, 1),), points=(Rate(100, 1),))


def _bucket(rate: Rate, now_s: float) -> Bucket:
    """Our share of the rate, half full: earlier sessions may have spent the rest."""
    capacity = rate.capacity * SHARE
    return Bucket(max(1.0, capacity), max(1.0, capacity) / rate.seconds, capacity / 2, now_s)


@dataclass(slots=True)
class Pacer:
    """Token buckets for messages and data points of one session."""

    limits: Limits = field(default_factory=Limits)
    _messages: list[Bucket] = field(default_factory=list)
    _points: list[Bucket] = field(default_factory=list)

    def use(self, limits: Limits, now_s: float) -> None:
        """Begin with half a bucket, for what earlier sessions may have spent; the same limits again change nothing.

        The server's buckets belong to the device: a new connection does not fill them.
        """
        if limits == self.limits:
            return
        self.limits = limits
        self._messages = [_bucket(rate, now_s) for rate in limits.messages]
        self._points = [_bucket(rate, now_s) for rate in limits.points]

    def wait_s(self, now_s: float, points: int) -> float:
        """Seconds until a publish with `points` data points is within the limits."""
        waits = [bucket.wait_s(now_s, 1) for bucket in self._messages]
        waits += [bucket.wait_s(now_s, points) for bucket in self._points]
        return max(waits, default=0.0)

    def sent(self, points: int) -> None:
        for bucket in self._messages:
            bucket.take(1)
        for bucket in self._points:
            bucket.take(points)
