"""What windows came to, as records of the gateway's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from teg.domain.telemetry.report_windows import Point
from teg.domain.telemetry.validation import MAX_RECORD_BYTES, encode_values


def own_records(points: Sequence[Point], scale: Callable[[str, object], object]) -> list[tuple[int, bytes]]:
    """What has the same time shares a record, as far as it fits into one and no key is there twice."""
    records: list[_OwnRecord] = []
    newest: dict[int, _OwnRecord] = {}
    for point in points:
        value = scale(point.of, point.value)
        size = len((encode_values(point.ts_ms, {point.key: value}) or "").encode())
        record = newest.get(point.ts_ms)
        if record is None or point.key in record.values or record.size + size > MAX_RECORD_BYTES:
            record = newest[point.ts_ms] = _OwnRecord(point.ts_ms)
            records.append(record)
        record.values[point.key] = value
        record.size += size
    texts = ((record.ts_ms, encode_values(record.ts_ms, record.values)) for record in records)
    return [(ts_ms, text.encode()) for ts_ms, text in texts if text]


@dataclass(slots=True)
class _OwnRecord:
    ts_ms: int
    values: dict[str, Any] = field(default_factory=dict)
    size: int = 0
