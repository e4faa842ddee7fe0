"""When records were archived, by the wall clock and by the time of the boot; and the records that a set clock moves."""

from collections.abc import Callable, Collection, Iterable, Iterator
from sqlite3 import Connection
from typing import Any

from teg.adapters.gateway_db.counters import count
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import insert_records, next_id
from teg.domain.ports import Clock
from teg.domain.telemetry.clock_steps import ANCHOR_EVERY_MS, Anchor, Step, boot_name
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.validation import REASON_CLOCK_NOT_SET, Record, restamp

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS clock_anchor (id INTEGER PRIMARY KEY, first_record INTEGER NOT NULL,"
    " first_letter INTEGER NOT NULL, boot BLOB NOT NULL, boottime_ms INTEGER NOT NULL, wall_ms INTEGER NOT NULL,"
    " since_ms INTEGER NOT NULL, synchronised INTEGER NOT NULL)",
    # What was moved, and by how much: its `ts` as the controller wrote it stands in its message.
    "CREATE TABLE IF NOT EXISTS moved (record_id INTEGER PRIMARY KEY, shift_ms INTEGER NOT NULL)",
)

#: About four days of anchors; what waits for longer than that keeps its time.
KEPT_ANCHORS = 10_000
#: Records moved in one transaction.
SLICE = 200

_MOVABLE = (
    "SELECT r.id, r.ts, r.source_row, r.kind, r.message FROM outbox o JOIN record r ON r.id = o.record_id"
    " WHERE o.lane = ? AND o.record_id > ? AND o.record_id < ?"
    " AND NOT EXISTS (SELECT 1 FROM moved WHERE record_id = o.record_id) ORDER BY o.record_id LIMIT ?"
)
_LETTERS = (
    "SELECT id, source_row, type, message FROM dead_letter WHERE id >= ? AND id < ? AND id > ?"
    " AND reason LIKE ? ORDER BY id LIMIT ?"
)
_END = 1 << 62


class ClockAnchors:
    """`telemetry.clock_steps.Anchors`; `note` is called in the transaction of each batch."""

    def __init__(self, database: Database, clock: Clock, synchronised: Callable[[], bool] = lambda: False) -> None:
        self._database = database
        self._clock = clock
        self._synchronised = synchronised
        self._boot = boot_name(clock.boot_id())
        self._began = self._moment()
        self._last: Anchor | None = None

    def note(self, connection: Connection, first_record: int, first_letter: int) -> None:
        """A batch begins with these ids: an anchor, if the last one is of another clock or some time ago."""
        now = self._moment()
        if self._last is None:
            self._keep(connection, first_record, first_letter, self._began)
        elif now[0] - self._last.boottime_ms < ANCHOR_EVERY_MS and abs(now[1] - now[0] - self._last.offset_ms) < 1000:
            return
        self._keep(connection, first_record, first_letter, now)

    def anchor_now(self) -> None:
        with self._database.transaction() as connection:
            self.note(connection, next_id(connection, "record"), next_id(connection, "dead_letter"))

    def anchors(self) -> list[Anchor]:
        sql = (
            "SELECT first_record, first_letter, boot, boottime_ms, wall_ms, since_ms, synchronised FROM clock_anchor"
            " ORDER BY id"
        )
        return [Anchor(*row) for row in self._database.rows(sql)]

    def move(self, step: Step, skip: Collection[int]) -> int:
        """The gateway's own log lines, too: they were stamped by the same clock."""
        lanes = (Stream.DATA, Stream.OWN)
        return sum(self._move_records(lane, step, skip) for lane in lanes) + self._move_letters(step)

    # --- anchors -------------------------------------------------------------------------------------------

    def _moment(self) -> tuple[int, int]:
        return round(self._clock.monotonic_s() * 1000), self._clock.now_ms()

    def _keep(self, connection: Connection, first_record: int, first_letter: int, moment: tuple[int, int]) -> None:
        anchor = Anchor(first_record, first_letter, self._boot, *moment, self._began[0], self._synchronised())
        row = connection.execute(
            "INSERT INTO clock_anchor (first_record, first_letter, boot, boottime_ms, wall_ms, since_ms, synchronised)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (first_record, first_letter, anchor.boot, *moment, anchor.since_ms, anchor.synchronised),
        ).lastrowid
        connection.execute("DELETE FROM clock_anchor WHERE id <= ?", ((row or 0) - KEPT_ANCHORS,))
        self._last = anchor

    # --- what is moved -------------------------------------------------------------------------------------

    def _move_records(self, lane: Stream, step: Step, skip: Collection[int]) -> int:
        moved, after = 0, step.before[0].first_record - 1
        end = _END if step.end_record is None else step.end_record
        while rows := self._database.rows(_MOVABLE, (lane, after, end, SLICE)):
            after = rows[-1][0]
            chosen = [row for row in rows if row[0] not in skip and step.moves_record(row[0], row[1])]
            sent = self._sent_before(chosen[0][0], chosen[-1][0]) if chosen else set()
            moved += self._write(step, [row for row in chosen if row[0] not in sent])
        return moved

    def _sent_before(self, first: int, last: int) -> set[int]:
        """Acknowledged once and not proven when its connection ended: the server may have these already."""
        sql = "SELECT first_id, last_id FROM sent_before WHERE first_id <= ? AND last_id >= ?"
        return {row_id for run in self._database.rows(sql, (last, first)) for row_id in range(run[0], run[1] + 1)}

    def _write(self, step: Step, rows: list[Any]) -> int:
        verdicts = [
            (row_id, restamp(source, "log" if kind else "", message, step.shift_ms))
            for row_id, _, source, kind, message in rows
        ]
        found = [(row_id, record) for row_id, record in verdicts if record is not None]
        if not found:
            return 0
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE record SET ts = ?, payload = ? WHERE id = ?",
                [(record.ts_ms, record.payload, row_id) for row_id, record in found],
            )
            _flag(connection, [row_id for row_id, _ in found], step)
            count(connection, moved=len(found))
        return len(found)

    def _move_letters(self, step: Step) -> int:
        """Of 1970: such a `ts` was no time at all, so the rows were set aside; now they are records."""
        moved = 0
        for letters in self._letters(step):
            verdicts = [(letter, _restamped(step, *rest)) for letter, *rest in letters]
            moved += self._revive(step, [(letter, record) for letter, record in verdicts if record is not None])
        return moved

    def _letters(self, step: Step) -> Iterator[list[Any]]:
        after, end = 0, _END if step.end_letter is None else step.end_letter
        first = step.before[0].first_letter
        like = f"%{REASON_CLOCK_NOT_SET}%"
        while found := self._database.rows(_LETTERS, (first, end, after, like, SLICE)):
            after = found[-1][0]
            yield found

    def _revive(self, step: Step, found: list[tuple[int, Record]]) -> int:
        if not found:
            return 0
        with self._database.transaction() as connection:
            gone = [
                (letter, record)
                for letter, record in found
                if connection.execute("DELETE FROM dead_letter WHERE id = ?", (letter,)).rowcount
            ]
            first = insert_records(connection, [record for _, record in gone], Stream.DATA)
            _flag(connection, range(first, first + len(gone)), step)
            count(connection, accepted=len(gone), set_aside=-len(gone), moved=len(gone))
        return len(gone)


def _flag(connection: Connection, ids: Iterable[int], step: Step) -> None:
    connection.executemany("INSERT OR IGNORE INTO moved VALUES (?, ?)", [(row_id, step.shift_ms) for row_id in ids])


def _restamped(step: Step, source: int | None, row_type: str, message: bytes) -> Record | None:
    text = bytes(message).decode(errors="replace")
    return restamp(source or 0, row_type or "", text, step.shift_ms, step.moves_letter)
