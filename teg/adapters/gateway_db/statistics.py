"""How much of a span of time is archived: by days, each read from end to end where its rows lie side by side.

Rows come nearly in the order of their time. So a day's first and last id mostly enclose that day and little else, and
reading those pages in turn takes a quarter of looking up row by row what the index of `ts` names. Whether the ids do
enclose the whole day is proven by its number of rows, which the index alone gives.
"""

import time
from dataclasses import dataclass, field

from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import KEPT

DAY_MS = 86_400_000
#: Days that are told one by one; what comes after them is counted together.
MAX_DAYS = 1000
#: Ids that may be read for one that is meant.
SPREAD = 2

_SIZE = "coalesce(sum(length(CAST(message AS BLOB))), 0)"
_BY_INDEX = f"SELECT count(*), {_SIZE}, min(ts), max(ts) FROM record WHERE ts BETWEEN ? AND ? AND kind = {KEPT}"
_BY_ID = f"SELECT count(*), sum(kind <> {KEPT}), {_SIZE} FROM record WHERE id BETWEEN ? AND ? AND +ts BETWEEN ? AND ?"


@dataclass(slots=True)
class Statistics:
    """Kept measurements: rows, bytes of their messages, first and last `ts`, rows by UTC day."""

    rows: int = 0
    message_bytes: int = 0
    first_ts_ms: int | None = None
    last_ts_ms: int | None = None
    rows_per_day: dict[str, int] = field(default_factory=dict)

    def add(self, rows: int, message_bytes: int, first_ms: int | None, last_ms: int | None) -> None:
        """What lies after everything that was added before."""
        self.rows += rows
        self.message_bytes += message_bytes
        self.first_ts_ms = first_ms if self.first_ts_ms is None else self.first_ts_ms
        self.last_ts_ms = self.last_ts_ms if last_ms is None else last_ms


def statistics(database: Database, start_ms: int, end_ms: int) -> Statistics:
    """Of the span, both ends included."""
    found = Statistics()
    for _ in range(MAX_DAYS):
        first = database.rows("SELECT min(ts) FROM record WHERE ts BETWEEN ? AND ?", (start_ms, end_ms))[0][0]
        if first is None:
            return found
        day = first // DAY_MS
        until_ms = min(end_ms, (day + 1) * DAY_MS - 1)
        tally = _tally(database, first, until_ms)
        found.add(*tally)
        if tally[0]:
            found.rows_per_day[time.strftime("%Y-%m-%d", time.gmtime(day * 86_400))] = tally[0]
        start_ms = until_ms + 1
    found.add(*database.rows(_BY_INDEX, (start_ms, end_ms))[0])
    return found


def _tally(database: Database, start_ms: int, end_ms: int) -> tuple[int, int, int, int]:
    """Of a span in which there is a row, for `Statistics.add`."""
    span = (start_ms, end_ms)
    within = "FROM record WHERE ts BETWEEN ? AND ?"
    ends = [database.rows(f"SELECT id, ts {within} ORDER BY ts {way} LIMIT 1", span) for way in ("", "DESC")]
    [meant] = database.rows(f"SELECT count(*) {within}", span)[0]
    if all(ends):
        (first, first_ms), (last, last_ms) = ends[0][0], ends[1][0]
        if last - first < SPREAD * meant:
            rows, transient, size = database.rows(_BY_ID, (first, last, *span))[0]
            if rows == meant and not transient:
                return rows, size, first_ms, last_ms
    found: tuple[int, int, int, int] = database.rows(_BY_INDEX, span)[0]
    return found
