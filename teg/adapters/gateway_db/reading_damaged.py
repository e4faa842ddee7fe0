"""Reading a table of a damaged file as far as it goes: around what cannot be read, with the gaps named."""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from teg.adapters.gateway_db.outbox import KEPT, TRANSIENT

Span = tuple[int, int]
Row = tuple[Any, ...]

#: Rows fetched in one go; a damaged page costs at most this many to be read one by one.
STEP = 256
#: Reads in vain, one after the other, after which the rest of what lies between is taken for a gap.
MAX_VAIN = 2000


@dataclass
class Gaps:
    """Spans of ids (both ends included) that SQLite could not read."""

    spans: list[Span] = field(default_factory=list)

    def __contains__(self, row_id: int) -> bool:
        return any(first <= row_id <= last for first, last in self.spans)

    def __bool__(self) -> bool:
        return bool(self.spans)


class DamagedTable:
    """One table read upwards by its integer key; where that breaks, downwards from the end, then by halves between."""

    def __init__(self, connection: sqlite3.Connection, columns: str, table: str, key: str, where: str = "1") -> None:
        self._connection = connection
        self._sql = f"SELECT {key}, {columns} FROM {table} WHERE {where} AND {key} BETWEEN ? AND ? ORDER BY {key}"
        self.gaps = Gaps()

    def rows(self, first: int = 0, last: int = 1 << 62) -> Iterator[Row]:
        """(key, columns …), each once; ascending as long as nothing is damaged."""
        broken = yield from self._upwards(first, last)
        if broken is None:
            return
        top = yield from self._downwards(broken, last)
        yield from self._between(broken, top)

    def _upwards(self, first: int, last: int) -> Generator[Row, None, int | None]:
        """Returns the first id not reached, None when the end was."""
        while first <= last:
            rows, whole = self._read(f"{self._sql} LIMIT {STEP}", first, last)
            yield from rows
            if rows:
                first = rows[-1][0] + 1
            if not whole:
                return first
            if len(rows) < STEP:
                return None
        return None

    def _downwards(self, first: int, last: int) -> Generator[Row, None, int]:
        """Returns the last id not reached."""
        while True:
            rows, whole = self._read(f"{self._sql} DESC LIMIT {STEP}", first, last)
            yield from rows
            if rows:
                last = rows[-1][0] - 1
            if not whole or len(rows) < STEP:
                return last

    def _between(self, first: int, last: int) -> Iterator[Row]:
        """Halve until a part can be read or is a handful of ids."""
        pending = [(first, last)]
        vain = 0
        while pending and vain < MAX_VAIN:
            first, last = pending.pop()
            rows, whole = self._read(self._sql, first, last)
            vain = 0 if rows else vain + 1
            yield from rows
            if rows:
                first = rows[-1][0] + 1
            if first >= last and not whole:
                self.gaps.spans.append((first, last))
            elif not whole:
                middle = (first + last) // 2
                pending += [(middle + 1, last), (first, middle)]
        self.gaps.spans += pending

    def _read(self, sql: str, first: int, last: int) -> tuple[list[Row], bool]:
        """What came before the error, and whether there was none."""
        rows: list[Row] = []
        try:
            for row in self._connection.execute(sql, (first, last)):
                rows.append(row)
        except sqlite3.Error:
            return rows, False
        return rows, True


def as_record(values: Sequence[Any]) -> tuple[Any, ...] | None:
    """The row when its text is a record and says the same time as its columns."""
    if len(values) != 6:
        return None
    source_row, ts, points, message, payload, kind = values
    if not _are_integers(ts, points, kind) or not (source_row is None or type(source_row) is int):
        return None
    with suppress(UnicodeDecodeError, TypeError, ValueError):
        text, corrected = bytes(message).decode(), None if payload is None else bytes(payload).decode()
        record = orjson.loads(corrected or text)
        if isinstance(record, dict) and int(record["ts"]) == ts and kind in (KEPT, TRANSIENT):
            return source_row, ts, points, text, corrected, kind
    return None


def as_letter(values: Sequence[Any]) -> tuple[Any, ...] | None:
    """The row of a dead letter when it can be one."""
    if len(values) != 5:
        return None
    source_row, row_type, message, reason, set_aside_ms = values
    if not _are_integers(set_aside_ms) or not (source_row is None or type(source_row) is int):
        return None
    with suppress(UnicodeDecodeError, TypeError, ValueError):
        row_type = row_type if isinstance(row_type, str) else bytes(row_type or b"").decode()
        bytes(reason).decode()
        return source_row, row_type, bytes(message or b""), bytes(reason), set_aside_ms
    return None


def _are_integers(*values: object) -> bool:
    return all(type(value) is int for value in values)
