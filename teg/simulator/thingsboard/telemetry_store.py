"""What one device has sent as telemetry: the raw payloads, and the points the server stores of them.

Storing only keeps the payload or record; the points are worked out when somebody asks. A point is (key, ts),
the last value wins.
"""

import threading
from collections import deque
from typing import Any, Literal

from teg.simulator.thingsboard.payloads import records_in
from teg.simulator.thingsboard.typing_rules import SKIPPED, stored

#: full: keep raw payloads. distinct: keep points only. count: keep numbers only.
Depth = Literal["full", "distinct", "count"]

#: The points of each key, and the ts of its latest value.
Backup = tuple[dict[str, dict[int, Any]], dict[str, int]]


class TelemetryStore:
    """`accept` and `store*` on the server's loop, everything else in any thread."""

    def __init__(self, depth: Depth = "full") -> None:
        self.depth = depth
        self.publishes = 0
        self.records_received = 0
        self.bytes_received = 0
        self._received: list[tuple[int, bytes]] = []
        self._unfolded: deque[tuple[int, bytes | dict[str, Any]]] = deque()
        self._lock = threading.Lock()
        self._series: dict[str, dict[int, Any]] = {}
        self._latest: dict[str, int] = {}
        self._duplicates = 0
        self._conflicts: list[tuple[str, int]] = []

    def accept(self, payload: bytes, arrival_ms: int, records: int) -> None:
        """Acknowledged, which is not yet stored."""
        self.publishes += 1
        self.records_received += records
        self.bytes_received += len(payload)
        if self.depth == "full":
            self._received.append((arrival_ms, payload))

    def store(self, payload: bytes, arrival_ms: int) -> None:
        """Every record of an accepted payload at once."""
        if self.depth != "count":
            self._unfolded.append((arrival_ms, payload))

    def store_record(self, ts_ms: int, values: dict[str, Any]) -> None:
        """One record, as `payloads.records_in` gives it."""
        if self.depth != "count":
            self._unfolded.append((ts_ms, values))

    def store_typed(self, ts_ms: int, values: dict[str, Any]) -> None:
        """One record that the operator wrote, typed before. What arrived earlier is older."""
        self.fold()
        with self._lock:
            for key, value in values.items():
                self._put(key, ts_ms, value)

    def payloads(self) -> list[bytes]:
        """As received, in order, stored or not. Only with depth "full"."""
        return [payload for _, payload in self._received]

    def arrivals(self) -> list[tuple[int, bytes]]:
        """(wall-clock ms, payload) as received. Only with depth "full"."""
        return list(self._received)

    def records(self) -> list[tuple[int, dict[str, Any]]]:
        """(ts, values) as received, stored or not; parsed anew at every call. Only with depth "full"."""
        return [record for arrival_ms, payload in self._received for record in records_in(payload, arrival_ms)]

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

    def series(self, key: str) -> dict[int, Any]:
        """ts -> value of one key."""
        self.fold()
        with self._lock:
            return dict(self._series.get(key, {}))

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

    def backup(self) -> Backup:
        """The points as they are stored now."""
        self.fold()
        with self._lock:
            return {key: dict(series) for key, series in self._series.items()}, dict(self._latest)

    def restore(self, backup: Backup) -> None:
        """What was stored since then is gone; the counters go on, as they tell what arrived."""
        self.fold()
        series, latest = backup
        with self._lock:
            self._series = {key: dict(points) for key, points in series.items()}
            self._latest = dict(latest)

    def fold(self) -> None:
        """Work what was stored since the last time into the points."""
        with self._lock:
            while self._unfolded:
                ms, item = self._unfolded.popleft()
                records = records_in(item, ms) if isinstance(item, bytes) else [(ms, item)]
                for ts_ms, values in records:
                    self._store(ts_ms, values)

    def _store(self, ts_ms: int, values: dict[str, Any]) -> None:
        for key, raw in values.items():
            value = stored(raw)
            if value is not SKIPPED:
                self._put(key, ts_ms, value)

    def _put(self, key: str, ts_ms: int, value: Any) -> None:
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = {}
        if ts_ms in series:
            self._overwrite(key, ts_ms, series[ts_ms], value)
        series[ts_ms] = value
        if ts_ms >= self._latest.get(key, ts_ms):
            self._latest[key] = ts_ms

    def _overwrite(self, key: str, ts: int, old: Any, new: Any) -> None:
        if type(old) is type(new) and old == new:
            self._duplicates += 1
        else:
            self._conflicts.append((key, ts))
