"""What the next publish carries: own reports and fresh measurements first, the backlog in the room that is left.

A server may be away for a day; what is measured after it came back must not wait for that day to be sent. So the
controller's stream is read at two places: *fresh* from where it ended when the connection was made, *old* from its
beginning to there. Both travel in one array, which costs no message on a server that counts messages.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from teg.domain.telemetry.ports import Delivery, Stream

#: Of the drain rate.
SPAN_S = 30.0
READ_ROWS = 2000
READ_BYTES = 4 * 60_000

#: id, points, kind (1: not kept once stored), JSON
Row = tuple[int, int, int, bytes]
#: A row's name: an id may be in two streams.
Key = tuple[Stream, int]


@dataclass(slots=True)
class Batch:
    """What one publish carries. `old` counts the rows that come out of a backlog."""

    max_bytes: int
    max_points: int | None = None
    segments: list[tuple[Stream, list[Row]]] = field(default_factory=list)
    size: int = 2
    points: int = 0
    old: int = 0

    @property
    def empty(self) -> bool:
        return not self.segments

    @property
    def rows(self) -> int:
        return sum(len(rows) for _, rows in self.segments)

    def fits(self, row: Row, share: float = 1.0) -> bool:
        """The first row always fits: one that the server cannot take is found out by sending it."""
        if self.empty:
            return True
        size, points = self.size + len(row[3]) + 1, self.points + row[1]
        return size <= self.max_bytes * share and (self.max_points is None or points <= self.max_points * share)

    def add(self, stream: Stream, row: Row) -> None:
        if not self.segments or self.segments[-1][0] != stream:
            self.segments.append((stream, []))
        self.segments[-1][1].append(row)
        self.size += len(row[3]) + 1
        self.points += row[1]

    def payload(self) -> bytes:
        return b"[" + b",".join([row[3] for _, rows in self.segments for row in rows]) + b"]"

    def keys(self) -> tuple[Key, ...]:
        return _keys(self._deliveries())

    def published(self) -> "Published":
        sample = b"[" + self.segments[0][1][0][3] + b"]"
        return Published(self.size, self.rows, self.old, self._deliveries(), sample)

    def _deliveries(self) -> tuple[Delivery, ...]:
        """By stream, ids ascending."""
        ids: dict[Stream, list[int]] = {}
        kept: dict[Stream, bool] = {}
        for stream, rows in self.segments:
            ids.setdefault(stream, []).extend([row[0] for row in rows])
            kept[stream] = kept.get(stream, False) or any(row[2] for row in rows)
        return tuple(Delivery(stream, _compact(sorted(found)), kept[stream]) for stream, found in ids.items())


@dataclass(frozen=True, slots=True)
class Published:
    """What is remembered of a batch while it is on its way: a dozen of them with their texts would be megabytes."""

    size: int
    rows: int
    old: int
    deliveries: tuple[Delivery, ...]  #: by stream, ids ascending
    sample: bytes  #: one record of it as a publish of its own

    def keys(self) -> tuple[Key, ...]:
        return _keys(self.deliveries)


def _keys(deliveries: Iterable[Delivery]) -> tuple[Key, ...]:
    return tuple((delivery.lane, row_id) for delivery in deliveries for row_id in delivery.ids)


def _compact(ids: list[int]) -> Sequence[int]:
    """Ascending and different, and nearly always one after the other."""
    return range(ids[0], ids[-1] + 1) if ids[-1] - ids[0] == len(ids) - 1 else ids


class Rows(Protocol):
    """What is read of the outbox."""

    def pending(self, lane: Stream, after_id: int, max_rows: int, max_bytes: int) -> list[Row]: ...

    def newest(self, lane: Stream) -> int: ...


class ScaledRows:
    """The outbox's rows as the server gets them."""

    def __init__(self, outbox: Rows, scaled: Callable[[bytes], bytes]) -> None:
        self._outbox = outbox
        self._scaled = scaled

    def pending(self, lane: Stream, after_id: int, max_rows: int, max_bytes: int) -> list[Row]:
        rows = self._outbox.pending(lane, after_id, max_rows, max_bytes)
        if lane == Stream.OWN:
            return rows
        return [(row_id, points, kind, self._scaled(text)) for row_id, points, kind, text in rows]

    def newest(self, lane: Stream) -> int:
        return self._outbox.newest(lane)


class Backlog:
    """The outbox as the publisher reads it: each row once, until `rewind`."""

    def __init__(self, outbox: Rows, scaled: Callable[[bytes], bytes] | None = None) -> None:
        self._outbox = outbox = outbox if scaled is None else ScaledRows(outbox, scaled)
        self._own = _Reader(outbox, Stream.OWN)
        self._fresh = _Reader(outbox, Stream.DATA)
        self._old = _Reader(outbox, Stream.DATA)
        self._again = _Reader(outbox, Stream.REPUBLISH)
        self._turn = self._old

    def rewind(self) -> None:
        """Begin anew; only while nothing that was read is on its way, or it goes twice."""
        newest = self._outbox.newest(Stream.DATA)
        for reader in (self._own, self._again):
            reader.between(0, None)
        self._old.between(0, newest)
        self._fresh.between(newest, None)

    def cut(self, max_bytes: int, max_points: int | None, skip: Collection[Key] = ()) -> Batch | None:
        """The next publish, None when there is nothing new. Rows named in `skip` are passed over."""
        batch = Batch(max_bytes, max_points)
        self._own.fill(batch, skip)
        background = [reader for reader in self._waiting() if reader.more(skip)]
        # Half for the fresh ones while others wait: a controller that sends more than the link carries starves nobody.
        self._fresh.fill(batch, skip, 0.5 if background else 1.0)
        fresh = batch.rows
        if background:
            background[0].fill(batch, skip)
            self._turn = self._again if background[0] is self._old else self._old
        batch.old = batch.rows - fresh
        return None if batch.empty else batch

    def fetch(self, keys: Collection[Key], max_bytes: int) -> Batch:
        """Exactly these rows, as far as they are still in the outbox."""
        batch = Batch(max_bytes)
        for stream in Stream:
            for first, last in _runs(sorted(row_id for lane, row_id in keys if lane == stream)):
                for row in self._outbox.pending(stream, first - 1, last - first + 1, 1 << 30):
                    if row[0] <= last:
                        batch.add(stream, row)
        return batch

    def _waiting(self) -> tuple["_Reader", "_Reader"]:
        """Republished rows and the controller's backlog take turns: neither waits for the other's end."""
        return (self._old, self._again) if self._turn is self._old else (self._again, self._old)


def _runs(ids: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for row_id in ids:
        if runs and runs[-1][1] == row_id - 1:
            runs[-1] = (runs[-1][0], row_id)
        else:
            runs.append((row_id, row_id))
    return runs


class _Reader:
    """One stream between two ids, read ahead."""

    def __init__(self, outbox: Rows, stream: Stream) -> None:
        self._outbox = outbox
        self.stream = stream
        self.between(0, None)

    def between(self, after_id: int, upto_id: int | None) -> None:
        self._rows: deque[Row] = deque()
        self._after_id, self._upto_id = after_id, upto_id

    def more(self, skip: Collection[Key] = ()) -> bool:
        if not self._rows:
            self._read()
        while self._rows and skip and (self.stream, self._rows[0][0]) in skip:
            self._rows.popleft()
        return bool(self._rows)

    def fill(self, batch: Batch, skip: Collection[Key] = (), share: float = 1.0) -> None:
        while self.more(skip) and batch.fits(self._rows[0], share):
            batch.add(self.stream, self._rows.popleft())

    def _read(self) -> None:
        if self._upto_id is not None and self._after_id >= self._upto_id:
            return
        rows = self._outbox.pending(self.stream, self._after_id, READ_ROWS, READ_BYTES)
        if not rows:
            if self._upto_id is not None:
                self._after_id = self._upto_id
            return
        self._after_id = rows[-1][0]
        upto_id = self._upto_id
        self._rows.extend(rows if upto_id is None else [row for row in rows if row[0] <= upto_id])


class DrainRate:
    """How fast rows are acknowledged, over the last half minute: for the estimate of a backlog's end.

    Counts by the second; written by one thread, read by any.
    """

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=int(SPAN_S))

    def add(self, now_s: float, rows: int, old: int) -> None:
        """`old` of the `rows` came out of a backlog."""
        second = int(now_s)
        if self._seconds and self._seconds[-1][0] == second:
            _, rows_before, old_before = self._seconds.pop()
            rows, old = rows + rows_before, old + old_before
        self._seconds.append((second, rows, old))

    def rows_per_s(self, now_s: float) -> float:
        return self._mean(now_s, 1)

    def old_per_s(self, now_s: float) -> float:
        return self._mean(now_s, 2)

    def _mean(self, now_s: float, column: int) -> float:
        """The second that is still running is left out: it is not over."""
        recent = [entry for entry in tuple(self._seconds) if now_s - SPAN_S - 1 <= entry[0] < int(now_s)]
        return sum(entry[column] for entry in recent) / max(1, int(now_s) - recent[0][0]) if recent else 0.0
