"""What has been seen of one key since it was last told: a window of time to sum up, or the value that was told. Pure.

Windows lie by the record's time, from a multiple of their length to the next. A few are open at once, because records
come out of order and a controller may send history beside what it measures now.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from teg.domain.telemetry.report_rules import Strategy

#: Windows of one key that are open at once; one more closes the one that was written to longest ago.
OPEN = 3
#: A window whose time is over stays open for its own length, within these: records may be late.
LEAST_GRACE_MS, MOST_GRACE_MS = 2_000, 60_000
#: And for so long after the last record that it took: what is late mostly comes in heaps.
QUIET_S = 5.0
#: A value's text beyond this is remembered by its hash.
REMEMBERED_BYTES = 64


def is_number(value: object) -> bool:
    return type(value) is int or type(value) is float


@dataclass(slots=True)
class Window:
    """From `start_ms` on, of records from `first_id` on."""

    start_ms: int
    first_id: int
    opened_s: float
    written_s: float = 0.0
    count: int = 0
    mean: float = 0.0
    least: Any = None
    most: Any = None
    last: Any = None
    last_ms: int = -1

    def add(self, ts_ms: int, value: Any) -> None:
        if ts_ms >= self.last_ms:
            self.last, self.last_ms = value, ts_ms
        if is_number(value):
            self.count += 1
            self.mean += (value - self.mean) / self.count
            self.least = value if self.least is None else min(self.least, value)
            self.most = value if self.most is None else max(self.most, value)

    def figure(self, name: str) -> Any:
        return {"last": self.last, "mean": self.mean, "min": self.least, "max": self.most}[name]


@dataclass(frozen=True, slots=True)
class Point:
    """What a window of key `of` comes to: a value told as `key`, at the time of the last record in it."""

    of: str
    key: str
    ts_ms: int
    value: Any


@dataclass(slots=True)
class Windows:
    """The open windows of one key; the one written to last stands last."""

    key: str
    strategy: Strategy
    open: dict[int, Window] = field(default_factory=dict)

    @property
    def first_id(self) -> int | None:
        """The first record that an open window has something of."""
        return min((window.first_id for window in self.open.values()), default=None)

    def takes(self, value: Any) -> bool:
        """Can it be summed up as asked for? What is no number has a last value, but no mean."""
        return value is None or self.strategy.figures == ("last",) or is_number(value)

    def add(self, row_id: int, ts_ms: int, value: Any, now_s: float) -> list[Point]:
        """Returns what had to be closed to make room. The server skips a null, and so do we."""
        if value is None:
            return []
        start_ms = ts_ms - ts_ms % self.strategy.every_ms
        window = self.open.pop(start_ms, None) or Window(start_ms, row_id, now_s)
        self.open[start_ms] = window
        window.add(ts_ms, value)
        window.written_s = now_s
        return self._close(next(iter(self.open))) if len(self.open) > OPEN else []

    def close_over(self, now_ms: int, now_s: float) -> list[Point]:
        """Those whose time has passed: by the wall clock, or, where its records are ahead of it, by ours."""
        over = [start_ms for start_ms, window in self.open.items() if self._over_in_ms(window, now_ms, now_s) <= 0]
        return [point for start_ms in over for point in self._close(start_ms)]

    def over_in_s(self, now_ms: int, now_s: float) -> float:
        """Seconds until the next one is to be closed, if nothing more comes."""
        waits = (self._over_in_ms(window, now_ms, now_s) for window in self.open.values())
        return min(waits, default=math.inf) / 1000

    def _over_in_ms(self, window: Window, now_ms: int, now_s: float) -> float:
        open_ms = self.strategy.every_ms + min(max(self.strategy.every_ms, LEAST_GRACE_MS), MOST_GRACE_MS)
        passed_ms = min(window.start_ms + open_ms - now_ms, open_ms - (now_s - window.opened_s) * 1000)
        return max(passed_ms, (window.written_s + QUIET_S - now_s) * 1000)

    def close_all(self) -> list[Point]:
        return [point for start_ms in list(self.open) for point in self._close(start_ms)]

    def _close(self, start_ms: int) -> list[Point]:
        return list(self._points(self.open.pop(start_ms)))

    def _points(self, window: Window) -> Iterator[Point]:
        """One figure keeps the key's name; of several each adds its own to it."""
        figures = self.strategy.figures
        for name in figures:
            if name == "last" or window.count:
                key = self.key if len(figures) == 1 else f"{self.key}_{name}"
                yield Point(self.key, key, window.last_ms, window.figure(name))


@dataclass(slots=True)
class LastTold:
    """Of a key that is told on change: the value that was told last, as `remembered`, and its record's time."""

    strategy: Strategy
    ts_ms: int | None = None
    value: Any = None

    def goes(self, ts_ms: int, value: Any) -> bool:
        """Has it changed, or been silent for too long? If so this is the value told."""
        known = remembered(value)
        if self.ts_ms is not None and abs(ts_ms - self.ts_ms) < self.strategy.every_ms and not self._changed(known):
            return False
        self.ts_ms, self.value = ts_ms, known
        return True

    def _changed(self, known: Any) -> bool:
        if not (is_number(known) and is_number(self.value)):
            return type(known) is not type(self.value) or bool(known != self.value)
        band = self.strategy.band * (abs(self.value) if self.strategy.relative else 1)
        return bool(abs(known - self.value) > band)


def remembered(value: Any) -> Any:
    """A number itself, everything else as its JSON text, or a hash of a long one."""
    if is_number(value):
        return value
    text = orjson.dumps(value)
    return text.decode() if len(text) <= REMEMBERED_BYTES else blake2b(text, digest_size=16).hexdigest()
