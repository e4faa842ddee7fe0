"""What the link carries in a month, what it will have carried at its end, and what a budget of megabytes makes slower.

Counted is what leaves and enters the network interface for the session: TLS, TCP and IP included. A budget that the
forecast exceeds makes telemetry wait longer for others to share a message with. It never drops or holds anything.
"""

import calendar
import datetime
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from teg.domain.ports import Clock, State

logger = logging.getLogger("gateway.link")

MB = 1_000_000
HOUR_MS = 3_600_000
#: The forecast goes on as in the last so many hours; less than `LEAST_MS` of them is no forecast.
HOURS, LEAST_MS = 24, 600_000
#: State: this month's bytes, and those of the last hours.
TRAFFIC_KEY = "link.traffic"
#: How often a gateway with a budget looks at it, and writes down what was counted.
LOOK_S = 600.0
#: What a budget makes of the time for which records are gathered: from the first on, twice as long each look.
FIRST_GATHERING_S, LONGEST_GATHERING_S = 10.0, 600.0
#: Half as long doubles the messages at most, so this share of the budget is needed for it.
RELAXED = 0.45
#: A clock that shows less was not set since boot (1 January 2025).
PLAUSIBLE_MS = 1_735_689_600_000


@dataclass(slots=True)
class Traffic:
    """`month` counts months since year 0; `hours` maps an hour since 1970 to the bytes of both directions in it."""

    month: int = 0
    sent: int = 0
    received: int = 0
    hours: dict[int, int] = field(default_factory=dict)
    since_ms: int = 0  #: when counting began


class LinkMeter:
    """Bytes of the session; `add` from any thread. Kept over restarts only when asked to (`save`)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._traffic = Traffic(since_ms=clock.now_ms())

    def add(self, sent: int, received: int) -> None:
        now_ms = self._clock.now_ms()
        with self._lock:
            self._turn(now_ms)
            self._traffic.sent += sent
            self._traffic.received += received
            hour = now_ms // HOUR_MS
            self._traffic.hours[hour] = self._traffic.hours.get(hour, 0) + sent + received

    def _turn(self, now_ms: int) -> None:
        """A month begins. A clock that was not set yet, or is behind by less than one (no battery), begins none."""
        traffic, month = self._traffic, _month(now_ms)
        if now_ms < PLAUSIBLE_MS:
            return
        if not traffic.month - 1 <= month <= traffic.month:
            traffic.month, traffic.sent, traffic.received = month, 0, 0
        hour = now_ms // HOUR_MS
        traffic.hours = {kept: size for kept, size in traffic.hours.items() if hour - HOURS <= kept <= hour}

    def summary(self) -> dict[str, Any]:
        """Bytes of this month so far, and of all of it if it goes on like this; None: not known yet."""
        now_ms = self._clock.now_ms()
        with self._lock:
            self._turn(now_ms)
            traffic = self._traffic
            used = traffic.sent + traffic.received
            per_ms = self._per_ms(now_ms)
            return {
                "sent_bytes": traffic.sent,
                "received_bytes": traffic.received,
                "forecast_bytes": None if per_ms is None else round(used + per_ms * _left_ms(now_ms)),
                "per_day_bytes": None if per_ms is None else round(per_ms * 24 * HOUR_MS),
            }

    def _per_ms(self, now_ms: int) -> float | None:
        first = min(self._traffic.hours, default=now_ms // HOUR_MS) * HOUR_MS
        span_ms = now_ms - max(first, self._traffic.since_ms)
        return sum(self._traffic.hours.values()) / span_ms if span_ms >= LEAST_MS else None

    def save(self, state: State) -> None:
        """Raises Unavailable."""
        with self._lock:
            kept = {
                "month": self._traffic.month,
                "sent": self._traffic.sent,
                "received": self._traffic.received,
                "since_ms": self._traffic.since_ms,
                "hours": {str(hour): size for hour, size in self._traffic.hours.items()},
            }
        state.put(TRAFFIC_KEY, kept)

    def load(self, state: State) -> None:
        """What an earlier life counted; what cannot be understood counts as nothing. Raises Unavailable."""
        found = state.get(TRAFFIC_KEY)
        if not isinstance(found, Mapping):
            return
        with self._lock:
            self._join(found)

    def _join(self, found: Mapping[str, Any]) -> None:
        try:
            hours = {int(hour): int(size) for hour, size in found["hours"].items()}
            before = Traffic(
                int(found["month"]), int(found["sent"]), int(found["received"]), hours, int(found["since_ms"])
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return
        now, self._traffic = self._traffic, before
        self._turn(self._clock.now_ms())
        before.sent += now.sent
        before.received += now.received
        for hour, size in now.hours.items():
            before.hours[hour] = before.hours.get(hour, 0) + size


class LinkBudget:
    """`gathering_s` for the publisher; `look` every ten minutes, from one thread at a time."""

    def __init__(
        self,
        meter: LinkMeter,
        state: State,
        clock: Clock,
        megabytes: int | None,
        least_s: float,
        tell: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> None:
        """`least_s`: what is gathered for in any case. `tell` sets client attributes."""
        self.meter = meter
        self._state = state
        self._clock = clock
        self._budget = None if megabytes is None else megabytes * MB
        self._least_s = least_s
        self._tell = tell
        self._loaded = False
        self._looked_s = clock.monotonic_s()
        self.gathering_s = least_s

    @property
    def metered(self) -> bool:
        return self._budget is not None

    @property
    def due(self) -> bool:
        return self.metered and (not self._loaded or self._clock.monotonic_s() - self._looked_s >= LOOK_S)

    def look(self) -> None:
        """Write down what was counted, and gather longer or shorter.

        Raises:
            Unavailable: the state cannot be read or written now.
        """
        if self._budget is None or not self.due:
            return
        if not self._loaded:
            self.meter.load(self._state)
            self._loaded = True
            return
        self._looked_s = self._clock.monotonic_s()
        forecast = self.meter.summary()["forecast_bytes"]
        if forecast is not None:
            self._adapt(forecast, self._budget)
        self.meter.save(self._state)

    def save(self) -> None:
        """Before the end. Raises Unavailable."""
        if self.metered and self._loaded:
            self.meter.save(self._state)

    def _adapt(self, forecast: int, budget: int) -> None:
        before = self.gathering_s
        if forecast > budget:
            self.gathering_s = max(self._least_s, min(LONGEST_GATHERING_S, max(FIRST_GATHERING_S, 2 * before)))
        elif forecast < RELAXED * budget and before > self._least_s:
            self.gathering_s = before / 2 if before / 2 >= max(FIRST_GATHERING_S, self._least_s) else self._least_s
        if before <= self._least_s < self.gathering_s:
            self._say(forecast, budget)
        elif self.gathering_s <= self._least_s < before:
            logger.warning("the link keeps within TEG_LINK_MB_PER_MONTH again: records are gathered no longer than set")
            self._tell({"link_over_budget": False})

    def _say(self, forecast: int, budget: int) -> None:
        logger.warning(
            "the link is forecast to carry %d MB this month, TEG_LINK_MB_PER_MONTH is %d: records are gathered for up"
            " to %d s; none is dropped for it. TEG_REPORT says what need not be sent",
            *(round(forecast / MB), budget // MB, LONGEST_GATHERING_S),
        )
        self._tell({"link_over_budget": True})

    def summary(self) -> dict[str, Any]:
        """For `status`."""
        return {**self.meter.summary(), "budget_bytes": self._budget, "gathering_s": self.gathering_s}


def _month(now_ms: int) -> int:
    today = _utc(now_ms)
    return today.year * 12 + today.month - 1


def _left_ms(now_ms: int) -> int:
    today = _utc(now_ms)
    days = calendar.monthrange(today.year, today.month)[1]
    end = datetime.datetime(today.year, today.month, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=days)
    return round(end.timestamp() * 1000) - now_ms


def _utc(now_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
