"""What one device has sent as telemetry: the raw payloads, and the points the server stores of them.

Receiving only keeps the payload; the points are worked out when somebody asks. A point is (key, ts),
the last value wins.
"""

import threading
from collections.abc import Iterator
from typing import Any, Literal

from teg.simulator.thingsboard.payloads import records_in
from teg.simulator.thingsboard.typing_rules import SKIPPED, typed

#: full: keep raw payloads. distinct: keep points only. count: keep numbers only.
Depth = Literal["full", "distinct", "count"]


class TelemetryStore:
    """`add` on the server's loop, everything else in any thread."""

    def __init__(self, depth: Depth = "full") -> None:
        self.depth = depth
        self.publishes = 0
        self.records_received = 0
        self.bytes_received = 0
        self._raw: list[tuple[int, bytes]] = []
        self._folded = 0
        self._lock = threading.Lock()
        self._series: dict[str, dict[int, Any]] = {}
        self._latest: dict[str, int] = {}
        self._points = 0
        self._duplicates = 0
        self._conflicts: list[tuple[str, int]] = []

    def add(self, payload: bytes, arrival_ms: int, records: int) -> None:
        self.publishes += 1
        self.records_received += records
        self.bytes_received += len(payload)
        if self.depth != "count":
            self._raw.append((arrival_ms, payload))

    def payloads(self) -> list[bytes]:
        """As received, in order. Only with depth "full"."""
        return [payload for _, payload in self._raw]

    def records(self) -> list[tuple[int, dict[str, Any]]]:
        """(ts, values) as received, in order, duplicates included; parsed anew at every call."""
        return [record for arrival_ms, payload in self._raw for record in records_in(payload, arrival_ms)]

    def points(self) -> dict[tuple[str, int], Any]:
        self.fold()
        with self._lock:
            return {(key, ts): value for key, series in self._series.items() for ts, value in series.items()}

    def distinct(self) -> int:
        self.fold()
        with self._lock:
            return sum(map(len, self._series.values()))

    def per_key(self) -> dict[str, int]:
        """Number of different ts of each key."""
        self.fold()
        with self._lock:
            return {key: len(series) for key, series in self._series.items()}

    def duplicates(self) -> int:
        """Points that arrived once more with the same value, such as after a lost PUBACK."""
        self.fold()
        return self._duplicates

    def conflicts(self) -> list[tuple[str, int]]:
        """Points that were overwritten by a different value: here the server loses data."""
        self.fold()
        return list(self._conflicts)

    def latest(self, key: str) -> Any:
        """The value with the greatest ts, None without any."""
        self.fold()
        with self._lock:
            return self._series[key][self._latest[key]] if key in self._latest else None

    def latest_values(self) -> dict[str, Any]:
        self.fold()
        with self._lock:
            return {key: self._series[key][ts] for key, ts in self._latest.items()}

    def fold(self) -> None:
        """Work the payloads received since the last time into the points."""
        with self._lock:
            for arrival_ms, payload in self._take_new():
                for ts, values in records_in(payload, arrival_ms):
                    self._store(ts, values)

    def _take_new(self) -> Iterator[tuple[int, bytes]]:
        end = len(self._raw)
        if self.depth == "distinct":
            for index in range(end):
                yield self._raw[index]
            del self._raw[:end]
            return
        while self._folded < end:
            self._folded += 1
            yield self._raw[self._folded - 1]

    def _store(self, ts: int, values: dict[str, Any]) -> None:
        for key, raw in values.items():
            value = typed(raw)
            if value is SKIPPED:
                continue
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = {}
            if ts in series:
                self._overwrite(key, ts, series[ts], value)
            series[ts] = value
            if ts >= self._latest.get(key, ts):
                self._latest[key] = ts

    def _overwrite(self, key: str, ts: int, old: Any, new: Any) -> None:
        if type(old) is type(new) and old == new:
            self._duplicates += 1
        else:
            self._conflicts.append((key, ts))
