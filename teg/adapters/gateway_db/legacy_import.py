"""Rows taken over from the reference gateway, each batch stored together with how far it got."""

from collections.abc import Sequence
from sqlite3 import Connection

import orjson

from teg.adapters.gateway_db.counters import count
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import KEPT, ON_ITS_WAY, insert_dead, insert_records
from teg.domain.telemetry.legacy_import import Progress
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.validation import Record, SetAside


class LegacyImportTable:
    """`telemetry.legacy_import.NewHome`; progress lies in the state table under `takeover/<source>`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def progress(self, source: str) -> Progress:
        """Before identities were noted the value was a bare id: of which file, nobody knows."""
        found = self._database.rows("SELECT value FROM state WHERE key = ?", (f"takeover/{source}",))
        value = orjson.loads(found[0][0]) if found else None
        if not isinstance(value, dict):
            return Progress({}, begun=value is not None)
        return Progress({int(row_id): bytes.fromhex(mark) for row_id, mark in value.items()}, begun=True)

    def take_history(self, rows: Sequence[Record], progress: Progress) -> None:
        with self._database.transaction() as connection:
            new = [row for row in rows if not (progress.met_before and _in_archive(connection, row))]
            insert_records(connection, new, None)
            count(connection, accepted=len(new), delivered=len(new))
            _note(connection, "archive", progress)

    def take_pending(self, rows: Sequence[Record], aside: Sequence[SetAside], progress: Progress) -> None:
        with self._database.transaction() as connection:
            again = sum(_send_from_history(connection, row) for row in rows)  # one by one: two rows may be identical
            insert_dead(connection, aside)
            count(connection, accepted=len(rows) - again, set_aside=len(aside), delivered=-again)
            _note(connection, "pending", progress)

    def take_logs(self, rows: Sequence[tuple[int, bytes]], progress: Progress) -> None:
        with self._database.transaction() as connection:
            insert_records(connection, [(None, ts, 1, text.decode(), None, 1) for ts, text in rows], Stream.OWN)
            _note(connection, "logs", progress)


def _send_from_history(connection: Connection, row: Record) -> bool:
    """Put `row` on its way; True when it was in the history, from where it moves to a new id.

    Under its old one the publisher, who reads upwards, would not meet it, and an acknowledgement of rows around it
    could be taken for its own.
    """
    record_id = _in_history(connection, row)
    if record_id is None:
        insert_records(connection, [row], Stream.DATA)
        return False
    columns = "source_row, ts, points, message, payload, kind"
    found = connection.execute(f"SELECT {columns} FROM record WHERE id = ?", (record_id,)).fetchone()
    connection.execute("DELETE FROM record WHERE id = ?", (record_id,))
    insert_records(connection, [found], Stream.DATA)
    return True


def _in_history(connection: Connection, row: Record) -> int | None:
    """The record that the reference archived when it queued this one: same time, same values, not on its way."""
    return _same(connection, row, f"AND NOT {ON_ITS_WAY}")


def _in_archive(connection: Connection, row: Record) -> bool:
    return _same(connection, row, "") is not None


def _same(connection: Connection, row: Record, condition: str) -> int | None:
    values = orjson.loads(row.payload or row.message)["values"]
    found = connection.execute(
        f"SELECT id, coalesce(payload, message) FROM record WHERE ts = ? AND kind = {KEPT} {condition}", (row.ts_ms,)
    )
    return next((record_id for record_id, text in found if orjson.loads(text)["values"] == values), None)


def _note(connection: Connection, source: str, progress: Progress) -> None:
    value = orjson.dumps({str(row_id): mark.hex() for row_id, mark in progress.rows.items()}).decode()
    connection.execute("INSERT OR REPLACE INTO state (key, value) VALUES (?, ?)", (f"takeover/{source}", value))
