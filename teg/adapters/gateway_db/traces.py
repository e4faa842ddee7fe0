"""What the archive knows of one thing: a record, an inbox row, a dead letter, a call. For the console; read-only."""

from dataclasses import dataclass

from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.unproven import LOST
from teg.domain.telemetry.ports import Stream

#: So many records of one time stamp or inbox row are told of.
MANY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordTrace:
    """`waiting`: each line of the outbox it stands in, with the number of rows before it. `unproven_mark`: it was
    acknowledged and belongs to this watermark (None: it does not wait for a proof, LOST: its connection has ended)."""

    id: int
    inbox_row: int | None
    ts_ms: int
    message: str
    set_right: bool
    transient: bool
    waiting: dict[Stream, int]
    unproven_mark: int | None
    proven_mark: int | None

    @property
    def connection_ended(self) -> bool:
        return self.unproven_mark == LOST


@dataclass(frozen=True, slots=True)
class Proofs:
    """How far the server has proven what it stores; `given` None: not known yet whether it does."""

    proven_mark: int
    given: bool | None


class Traces:
    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, record_id: int) -> RecordTrace | None:
        columns = "id, source_row, ts, message, payload IS NOT NULL, kind"
        found = self._database.rows(f"SELECT {columns} FROM record WHERE id = ?", (record_id,))
        if not found:
            return None
        row_id, inbox_row, ts_ms, message, set_right, kind = found[0]
        return RecordTrace(
            id=row_id,
            inbox_row=inbox_row,
            ts_ms=ts_ms,
            message=message,
            set_right=bool(set_right),
            transient=bool(kind),
            waiting={lane: before for lane in Stream if (before := self._before(lane, row_id)) is not None},
            unproven_mark=self._mark("unproven", row_id),
            proven_mark=self._mark("proven", row_id),
        )

    def _before(self, lane: Stream, record_id: int) -> int | None:
        present = self._database.rows("SELECT 1 FROM outbox WHERE lane = ? AND record_id = ?", (lane, record_id))
        if not present:
            return None
        sql = "SELECT count(*) FROM outbox WHERE lane = ? AND record_id < ?"
        return int(self._database.rows(sql, (lane, record_id))[0][0])

    def _mark(self, table: str, record_id: int) -> int | None:
        sql = f"SELECT max(mark) FROM {table} WHERE first_id <= ? AND last_id >= ?"
        found = self._database.rows(sql, (record_id, record_id))[0][0]
        return None if found is None else int(found)

    def records_of_row(self, inbox_row: int) -> list[int]:
        return self._ids("SELECT id FROM record WHERE source_row = ? ORDER BY id DESC", inbox_row)

    def records_at(self, ts_ms: int) -> list[int]:
        return self._ids("SELECT id FROM record WHERE ts = ? ORDER BY id", ts_ms)

    def letters_of_row(self, inbox_row: int) -> list[int]:
        return self._ids("SELECT id FROM dead_letter WHERE source_row = ? ORDER BY id DESC", inbox_row)

    def _ids(self, sql: str, value: int) -> list[int]:
        return [int(row[0]) for row in self._database.rows(f"{sql} LIMIT {MANY}", (value,))]

    def last_record(self) -> int:
        """The highest number given out so far."""
        found = self._database.rows("SELECT seq FROM sqlite_sequence WHERE name = 'record'")
        return int(found[0][0]) if found else 0

    def report_rules(self) -> str:
        """`TEG_REPORT` of the gateway that last published; empty when every record goes."""
        known = self._database.rows("SELECT 1 FROM sqlite_master WHERE name = 'report_position'")
        return str(self._database.rows("SELECT rules FROM report_position")[0][0]) if known else ""

    def proofs(self) -> Proofs:
        mark, keeps = self._database.rows("SELECT proven_mark, keeps FROM proof")[0]
        return Proofs(mark, None if keeps is None else bool(keeps))
