"""Token buckets as in a ThingsBoard tenant profile: "20:1,600:60" = 20 a second and 600 a minute."""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits of one device, None = unlimited. Names are those of the `getSessionLimits` answer.

    `messages` counts what carries no data point (connect, subscribe, requests), `telemetry_messages`
    what carries some (telemetry and attribute publishes), `telemetry_data_points` the sum of their keys.
    """

    messages: str | None = None
    telemetry_messages: str | None = None
    telemetry_data_points: str | None = None

    @classmethod
    def of(cls, limits: "RateLimits | str | None") -> "RateLimits":
        """A single string limits the messages of both kinds."""
        if isinstance(limits, str):
            return cls(messages=limits, telemetry_messages=limits)
        return limits or cls()

    @classmethod
    def checked(cls, spec: str) -> "RateLimits":
        """Raise ValueError for a text that is no limit."""
        if not re.fullmatch(r"[1-9]\d*:[1-9]\d*(,[1-9]\d*:[1-9]\d*)*", spec):
            raise ValueError(f"{spec!r} is not of the form CAPACITY:SECONDS[,CAPACITY:SECONDS...]")
        return cls.of(spec)

    def as_json(self) -> dict[str, str | None]:
        return {
            "messages": self.messages,
            "telemetryMessages": self.telemetry_messages,
            "telemetryDataPoints": self.telemetry_data_points,
        }


@dataclass(slots=True)
class _Bucket:
    """Full at the start, refilled continuously; times are seconds on any monotonic clock."""

    capacity: float
    period_s: float
    level: float
    refilled_s: float | None = None

    def refill(self, now_s: float) -> None:
        if self.refilled_s is not None:
            gained = (now_s - self.refilled_s) * self.capacity / self.period_s
            self.level = min(self.capacity, self.level + gained)
        self.refilled_s = now_s


class TokenBucket:
    """Several bandwidths at once; a request passes only if every one of them has room for all of it."""

    def __init__(self, spec: str | None) -> None:
        self._buckets = [_parse_bandwidth(part) for part in spec.split(",")] if spec else []

    def take(self, tokens: int, now_s: float) -> bool:
        """Take all `tokens` or none. More than the capacity can never pass."""
        for bucket in self._buckets:
            bucket.refill(now_s)
        if any(bucket.level < tokens for bucket in self._buckets):
            return False
        for bucket in self._buckets:
            bucket.level -= tokens
        return True


def _parse_bandwidth(part: str) -> _Bucket:
    capacity, period_s = (int(number) for number in part.split(":"))
    return _Bucket(capacity, period_s, capacity)


@dataclass(slots=True)
class DeviceLimiter:
    """The buckets of one device. They outlive its sessions: that is why a reconnect gets code 3."""

    limits: RateLimits
    _messages: TokenBucket = field(init=False)
    _telemetry_messages: TokenBucket = field(init=False)
    _data_points: TokenBucket = field(init=False)

    def __post_init__(self) -> None:
        self._messages = TokenBucket(self.limits.messages)
        self._telemetry_messages = TokenBucket(self.limits.telemetry_messages)
        self._data_points = TokenBucket(self.limits.telemetry_data_points)

    @property
    def counts_points(self) -> bool:
        return self.limits != RateLimits()

    def admits_message(self, now_s: float) -> bool:
        return self._messages.take(1, now_s)

    def admits_points(self, points: int, now_s: float) -> bool:
        """A publish without any data point (`{}`) counts as a plain message."""
        if not points:
            return self.admits_message(now_s)
        return self._telemetry_messages.take(1, now_s) and self._data_points.take(points, now_s)
