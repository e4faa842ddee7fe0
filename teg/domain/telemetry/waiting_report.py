"""How long records have been waiting and how many were set aside, as telemetry: what alarms on the server stand on."""

from collections.abc import Callable, Mapping
from typing import Any

BACKLOG_AGE = "backlog_age_s"
DEAD_LETTERS = "dead_letters"
#: Younger than this is no backlog: with a second between records and server nothing would ever be 0.
YOUNG_S = 60


class WaitingReport:
    """Values that differ from what the server was last told; all of them the first time."""

    def __init__(self, counts: Callable[[], Mapping[str, Any]]) -> None:
        """`counts` as `ArchiveControl.counts`; raises Unavailable when the archive cannot be read now."""
        self._counts = counts
        self._told: dict[str, int] = {}

    def changed(self, now_ms: int) -> dict[str, int]:
        values = waiting_values(self._counts(), now_ms)
        return {key: value for key, value in values.items() if self._told.get(key) != value}

    def told(self, values: Mapping[str, int]) -> None:
        """The server has acknowledged them."""
        self._told |= values


def waiting_values(counts: Mapping[str, Any], now_ms: int) -> dict[str, int]:
    """The age is the oldest undelivered measurement's, in whole seconds; 0 when there is no backlog."""
    oldest_ms = counts["oldest_pending_ts"]
    age_s = 0 if oldest_ms is None else (now_ms - oldest_ms) // 1000
    return {BACKLOG_AGE: age_s if age_s >= YOUNG_S else 0, DEAD_LETTERS: counts["dead_letters"]}
