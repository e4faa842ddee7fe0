"""How much, how fast, how late, over the last hour and the last week: rings of fixed size in memory. Pure.

Nothing is written anywhere: a restart begins anew. Time is monotonic, so a clock that is set bends no curve.
"""

import math
from array import array
from collections import deque
from dataclasses import dataclass
from typing import Any

SAMPLE_S = 10.0
HOUR = (SAMPLE_S, 360)
WEEK = (1800.0, 336)
DAY_S = 86_400.0
COLUMNS = ("accepted_per_s", "delivered_per_s", "latency_ms", "backlog")
#: What the day's account is made of.
ACCOUNT = ("accepted", "delivered", "stored", "held", "evicted", "set_aside", "lost")


@dataclass(frozen=True, slots=True)
class Sample:
    """Readings of counters that mostly grow; `backlog` is of this moment."""

    accepted: int
    delivered: int
    backlog: int
    publishes: int  #: acknowledged ones
    latency_s: float  #: from publish to PUBACK, of all of them together


class Ring:
    """The newest `bins` intervals of `step_s`, one value a column each; NaN where nothing was read."""

    def __init__(self, step_s: float, bins: int) -> None:
        self.step_s = step_s
        self._bins = bins
        self._values = {column: deque[float](maxlen=bins) for column in COLUMNS}
        self._number: int | None = None
        self._begin: tuple[float, Sample] | None = None
        self._last: tuple[float, Sample] | None = None
        self._highest = 0

    def add(self, now_s: float, sample: Sample) -> None:
        number = int(now_s // self.step_s)
        if self._number is None or self._begin is None or self._last is None:
            self._begin = (now_s, sample)
        elif number != self._number:
            self._close(min(number - self._number, self._bins))
        self._number = number
        self._last = (now_s, sample)
        self._highest = max(self._highest, sample.backlog)

    def _close(self, passed: int) -> None:
        """The interval is over; those that passed without a reading stay empty."""
        self._put(self._interval())
        for _ in range(passed - 1):
            self._put((math.nan,) * len(COLUMNS))
        self._begin, self._highest = self._last, 0

    def _put(self, values: tuple[float, ...]) -> None:
        for column, value in zip(COLUMNS, values, strict=True):
            self._values[column].append(value)

    def _interval(self) -> tuple[float, ...]:
        assert self._begin is not None
        assert self._last is not None
        (begin_s, begin), (end_s, end) = self._begin, self._last
        elapsed_s = end_s - begin_s
        if elapsed_s <= 0:
            return math.nan, math.nan, math.nan, float(self._highest)
        publishes = end.publishes - begin.publishes
        return (
            max(0, end.accepted - begin.accepted) / elapsed_s,
            max(0, end.delivered - begin.delivered) / elapsed_s,
            (end.latency_s - begin.latency_s) / publishes * 1000 if publishes > 0 else math.nan,
            float(self._highest),
        )

    def as_dict(self) -> dict[str, Any]:
        """Oldest first; the interval that is not over comes last. None where nothing is known."""
        current = self._interval() if self._last is not None else ()
        columns: dict[str, Any] = {"step_s": self.step_s, "bins": self._bins}
        for number, column in enumerate(COLUMNS):
            values = [*self._values[column], *current[number : number + 1]][-self._bins :]
            columns[column] = [None if math.isnan(value) else float(f"{value:.4g}") for value in values]
        return columns


class History:
    """Both rings, and the account of the last day. Used by one thread at a time."""

    def __init__(self) -> None:
        self._hour, self._week = Ring(*HOUR), Ring(*WEEK)
        #: One reading each half hour: when, and the counters of the account.
        self._readings: deque[tuple[float, array[int]]] = deque(maxlen=int(DAY_S // WEEK[0]) + 1)

    def add(self, now_s: float, tally: dict[str, int], publishes: int, latency_s: float) -> None:
        sample = Sample(tally["accepted"], tally["delivered"], tally["pending"], publishes, latency_s)
        self._hour.add(now_s, sample)
        self._week.add(now_s, sample)
        if not self._readings or now_s - self._readings[-1][0] >= WEEK[0]:
            self._readings.append((now_s, array("q", (tally[name] for name in ACCOUNT))))

    def day(self, now_s: float, tally: dict[str, int]) -> dict[str, Any]:
        """What became of how many in the last 24 hours, or since the start; `since_s` says of how long."""
        kept = [reading for reading in self._readings if now_s - reading[0] <= DAY_S]
        if not kept:
            return {"since_s": 0}
        begin_s, before = kept[0]
        changes = {name: tally[name] - value for name, value in zip(ACCOUNT, before, strict=True)}
        return {"since_s": round(now_s - begin_s), **changes, "pending": tally["pending"]}

    def as_dict(self) -> dict[str, Any]:
        return {"hour": self._hour.as_dict(), "week": self._week.as_dict()}
