"""Rows taken over from the reference gateway, each batch stored together with how far it got."""

from collections.abc import Sequence
from sqlite3 import Connection

import orjson

from teg.adapters.gateway_db.counters import count
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import KEPT, insert_dead, insert_records
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.validation import Record, SetAside


class LegacyImportTable:
    """`telemetry.legacy_import.NewHome`; progress lies in the state table under `takeover/<source>`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def taken_upto(self, source: str) -> int:
        found = self._database.rows("SELECT value FROM state WHERE key = ?", (f"takeover/{source}",))
        return int(found[0][0]) if found else 0

    def take_history(self, rows: Sequence[Record], upto: int) -> None:
        with self._database.transaction() as connection:
            insert_records(connection, rows, None)
            count(connection, accepted=len(rows), delivered=len(rows))
            _note(connection, "archive", upto)

    def take_pending(self, rows: Sequence[Record], aside: Sequence[SetAside], upto: int) -> None:
        with self._database.transaction() as connection:
            known = [_in_history(connection, row) for row in rows]
            fresh = [row for row, record_id in zip(rows, known, strict=True) if record_id is None]
            again = [record_id for record_id in known if record_id is not None]
            insert_records(connection, fresh, Stream.DATA)
            connection.executemany(
                "INSERT OR IGNORE INTO outbox (lane, record_id) VALUES (?, ?)", [(Stream.DATA, i) for i in again]
            )
            insert_dead(connection, aside)
            count(connection, accepted=len(fresh), set_aside=len(aside), delivered=-len(again))
            _note(connection, "pending", upto)

    def take_logs(self, rows: Sequence[tuple[int, bytes]], upto: int) -> None:
        with self._database.transaction() as connection:
            insert_records(connection, [(None, ts, 1, text.decode(), None, 1) for ts, text in rows], Stream.OWN)
            _note(connection, "logs", upto)


def _in_history(connection: Connection, row: Record) -> int | None:
    """The record that the reference archived when it queued this one: same time, same values."""
    values = orjson.loads(row.payload or row.message)["values"]
    found = connection.execute(
        f"SELECT id, coalesce(payload, message) FROM record WHERE ts = ? AND kind = {KEPT}"
        " AND NOT EXISTS (SELECT 1 FROM outbox WHERE record_id = record.id)",
        (row.ts_ms,),
    )
    return next((record_id for record_id, text in found if orjson.loads(text)["values"] == values), None)


def _note(connection: Connection, source: str, upto: int) -> None:
    connection.execute("INSERT OR REPLACE INTO state (key, value) VALUES (?, ?)", (f"takeover/{source}", str(upto)))
