"""The kept records of an archive, read in slices beside a running gateway: no snapshot is held, nothing is changed."""

from collections.abc import Iterator

from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import KEPT
from teg.domain.telemetry.archive_file import Row
from teg.domain.telemetry.ports import Stream

SLICE = 1000
_WAITING = f"EXISTS (SELECT 1 FROM outbox WHERE lane = {Stream.DATA:d} AND record_id = record.id)"


class ExportTable:
    """Ranges include both ends."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def name(self) -> str:
        """The archive's own, given at its making."""
        return str(self._database.rows("SELECT archive FROM proof")[0][0])

    def count(self, start_ms: int, end_ms: int, undelivered: bool) -> int:
        sql = f"SELECT count(*) FROM record WHERE kind = {KEPT} AND ts BETWEEN ? AND ? {_only(undelivered)}"
        return int(self._database.rows(sql, (start_ms, end_ms))[0][0])

    def rows(self, start_ms: int, end_ms: int, undelivered: bool) -> Iterator[Row]:
        """By time stamp, then in the order of their arrival."""
        sql = (
            f"SELECT ts, id, NOT {_WAITING}, CAST(coalesce(payload, message) AS BLOB) FROM record"
            f" WHERE (ts, id) > (?, ?) AND ts <= ? AND kind = {KEPT} {_only(undelivered)} ORDER BY ts, id LIMIT {SLICE}"
        )
        last = (start_ms - 1, 1 << 62)
        while found := self._database.rows(sql, (*last, end_ms)):
            yield from (Row(row_id, bool(delivered), text) for _, row_id, delivered, text in found)
            last = found[-1][:2]


def _only(undelivered: bool) -> str:
    return f"AND {_WAITING}" if undelivered else ""
