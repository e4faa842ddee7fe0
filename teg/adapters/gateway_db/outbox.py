"""The archive and its outbox in `gateway.db`: rows come in by batches, leave the outbox on PUBACK, and stay archived.

A record's way: `record` (kept) + `outbox` (not yet acknowledged) → acknowledged → only `record`. What the controller
sent as a log, and the gateway's own reports, are deleted from `record` once acknowledged.
"""

import time
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any

from teg.adapters.gateway_db import chosen_keys, unproven
from teg.adapters.gateway_db.counters import count
from teg.adapters.gateway_db.database import Database
from teg.domain.telemetry.ports import Delivery, Stream, Unfinished, fingerprint
from teg.domain.telemetry.validation import Record, SetAside

KEPT, TRANSIENT = 0, 1
#: The largest id there is: a note without an end.
LAST_ROW = 2**63 - 1

SCHEMA = (
    # AUTOINCREMENT: an id must never come back while an acknowledgement for its predecessor may be on the way.
    "CREATE TABLE IF NOT EXISTS record (id INTEGER PRIMARY KEY AUTOINCREMENT, source_row INTEGER, ts INTEGER NOT NULL,"
    " points INTEGER NOT NULL, message TEXT NOT NULL, payload TEXT, kind INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS record_ts ON record (ts)",
    "CREATE TABLE IF NOT EXISTS outbox (lane INTEGER NOT NULL, record_id INTEGER NOT NULL,"
    " PRIMARY KEY (lane, record_id)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS dead_letter (id INTEGER PRIMARY KEY AUTOINCREMENT, source_row INTEGER, type TEXT,"
    " message BLOB NOT NULL, reason TEXT NOT NULL, set_aside_ms INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS inbox_batch (last_row INTEGER PRIMARY KEY, first_row INTEGER NOT NULL,"
    " first_record INTEGER NOT NULL, first_dead_letter INTEGER NOT NULL)",
    *unproven.SCHEMA,
    *chosen_keys.SCHEMA,
)

#: The outbox is found by lane and id: without a lane it would be read from end to end.
LANES = f"lane IN ({', '.join(f'{lane:d}' for lane in Stream)})"
ON_ITS_WAY = f"EXISTS (SELECT 1 FROM outbox WHERE {LANES} AND record_id = record.id)"

_INSERT_RECORD = "INSERT INTO record (source_row, ts, points, message, payload, kind) VALUES (?, ?, ?, ?, ?, ?)"
#: Rows in one statement of a backlog: its set-up, once a row, costs more than the insert itself.
TOGETHER = 200
_INSERT_TOGETHER = _INSERT_RECORD + ", (?, ?, ?, ?, ?, ?)" * (TOGETHER - 1)
_INSERT_DEAD = "INSERT INTO dead_letter (source_row, type, message, reason, set_aside_ms) VALUES (?, ?, ?, ?, ?)"


class RecordTable:
    """`telemetry.ports.Archive`, `Outbox` and `OwnRecords`."""

    def __init__(self, database: Database, note: Callable[[Connection, int, int], None] = lambda *_: None) -> None:
        """`note(connection, first_record, first_dead_letter)` is called in the transaction of each batch."""
        self._database = database
        self._note = note
        self._unproven = unproven.UnprovenTable(database)

    def store(self, records: Sequence[Record], set_aside: Sequence[SetAside], left_upto: int | None) -> None:
        rows = [record.source_row for record in records] + [dead.source_row for dead in set_aside]
        with self._database.transaction() as connection:
            first_dead = next_id(connection, "dead_letter")
            self._note(connection, next_id(connection, "record"), first_dead)
            first_record = insert_records(connection, records, Stream.DATA)
            insert_dead(connection, set_aside)
            _note_inbox_rows(connection, left_upto, min(rows), first_record, first_dead)
            count(connection, accepted=len(records), set_aside=len(set_aside))

    def unfinished(self) -> Unfinished:
        found: dict[int, tuple[bytes, ...]] = {}
        batches = "SELECT min(first_record), min(first_dead_letter), min(first_row), max(last_row) FROM inbox_batch"
        first_record, first_dead, first_row, last_row = self._database.rows(batches)[0]
        if first_record is None:
            return Unfinished(found)
        for table, first in (("record", first_record), ("dead_letter", first_dead)):
            sql = f"SELECT source_row, CAST(message AS BLOB) FROM {table} WHERE id >= ? AND source_row BETWEEN ? AND ?"
            with self._database.reading(sql, (first, first_row, last_row)) as rows:
                for source_row, message in rows:
                    found[source_row] = (*found.get(source_row, ()), fingerprint(message))
        return Unfinished(found)

    def confirm(self) -> None:
        self._database.verify()

    def store_own(self, records: Sequence[tuple[int, bytes]]) -> None:
        with self._database.transaction() as connection:
            self._note(connection, next_id(connection, "record"), next_id(connection, "dead_letter"))
            rows = [(None, ts_ms, 1, text.decode(), None, TRANSIENT) for ts_ms, text in records]
            insert_records(connection, rows, Stream.OWN)

    def pending(self, lane: Stream, after_id: int, max_rows: int, max_bytes: int) -> list[tuple[int, int, int, bytes]]:
        rows: list[tuple[int, int, int, bytes]] = []
        size = 0
        sql = (
            "SELECT r.id, r.points, r.kind, CAST(coalesce(r.payload, r.message) AS BLOB) FROM outbox o"
            " JOIN record r ON r.id = o.record_id WHERE o.lane = ? AND o.record_id > ? ORDER BY o.record_id LIMIT ?"
        )
        with self._database.reading(sql, (lane, after_id, max_rows)) as found:
            for row in found:
                rows.append(row)
                size += len(row[3])
                if size >= max_bytes:
                    break
        return chosen_keys.cut(self._database, lane, rows)

    def newest(self, lane: Stream) -> int:
        return int(self._database.rows("SELECT coalesce(max(record_id), 0) FROM outbox WHERE lane = ?", (lane,))[0][0])

    def connection_ended(self) -> int:
        return self._unproven.connection_ended()

    def mark_published(self, deliveries: Sequence[Delivery]) -> None:
        """Not fsynced: losing the mark in a power cut sends rows again that the server stores once (same ts)."""
        with self._database.transaction(durable=False) as connection:
            removed = [(delivery, _remove_from_outbox(connection, delivery)) for delivery in deliveries]
            count(connection, delivered=sum(len(ids) for delivery, ids in removed if delivery.lane == Stream.DATA))
            acknowledged = [Delivery(delivery.lane, ids, delivery.transient) for delivery, ids in removed]
            if not unproven.note_acknowledged(connection, acknowledged):
                unproven.forget_transient(connection, acknowledged)

    def set_aside(self, lane: Stream, record_id: int, reason: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO dead_letter (source_row, type, message, reason, set_aside_ms)"
                " SELECT source_row, '', CAST(message AS BLOB), ?, ? FROM record WHERE id = ?",
                (reason, _now_ms(), record_id),
            )
            connection.execute(f"DELETE FROM outbox WHERE {LANES} AND record_id = ?", (record_id,))
            connection.execute("DELETE FROM record WHERE id = ?", (record_id,))
            if lane == Stream.DATA:
                count(connection, accepted=-1, set_aside=1)


def insert_records(connection: Connection, rows: Sequence[tuple[Any, ...]], lane: Stream | None) -> int:
    """Insert rows (of `telemetry.validation.Record`'s shape) and, with a `lane`, put them on their way.

    Returns the first id given.
    """
    first = next_id(connection, "record")
    whole = len(rows) - len(rows) % TOGETHER
    for at in range(0, whole, TOGETHER):
        connection.execute(_INSERT_TOGETHER, _columns(rows[at : at + TOGETHER]))
    connection.executemany(_INSERT_RECORD, [(*row[:5], int(row[5])) for row in rows[whole:]])
    if lane is not None:
        connection.execute("INSERT INTO outbox (lane, record_id) SELECT ?, id FROM record WHERE id >= ?", (lane, first))
    return first


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """One after the other, and of SQLite's own types: a bool goes the long way through Python's adapters."""
    values: list[Any] = []
    for source_row, ts_ms, points, message, payload, kind in rows:
        values += (source_row, ts_ms, points, message, payload, 1 if kind else 0)
    return values


def _note_inbox_rows(
    connection: Connection, left_upto: int | None, first_row: int, first_record: int, first_dead: int
) -> None:
    """One note for all that is archived from here on and may still be in the inbox: not a page with every batch."""
    if left_upto is None:
        connection.execute("DELETE FROM inbox_batch")
    else:
        connection.execute("UPDATE inbox_batch SET first_row = ? WHERE first_row <= ?", (left_upto + 1, left_upto))
    note = "INSERT INTO inbox_batch (last_row, first_row, first_record, first_dead_letter) SELECT ?, ?, ?, ?"
    values = (LAST_ROW, first_row, first_record, first_dead)
    connection.execute(f"{note} WHERE NOT EXISTS (SELECT 1 FROM inbox_batch WHERE last_row = {LAST_ROW})", values)


def _remove_from_outbox(connection: Connection, delivery: Delivery) -> Sequence[int]:
    """Returns the ids that were still there: a row may have been evicted while its publish was on the way."""
    removed: list[int] = []
    for first, last in unproven.id_runs(delivery.ids):
        where = ("FROM outbox WHERE lane = ? AND record_id BETWEEN ? AND ?", (delivery.lane, first, last))
        present: Sequence[int] = range(first, last + 1)
        if connection.execute(f"SELECT count(*) {where[0]}", where[1]).fetchone()[0] != len(present):
            present = [row_id for (row_id,) in connection.execute(f"SELECT record_id {where[0]}", where[1])]
        connection.execute(f"DELETE {where[0]}", where[1])
        removed += present
    return removed


def insert_dead(connection: Connection, set_aside: Sequence[SetAside]) -> None:
    now_ms = _now_ms()
    connection.executemany(
        _INSERT_DEAD, [(dead.source_row, dead.type, dead.message, dead.reason, now_ms) for dead in set_aside]
    )


def next_id(connection: Connection, table: str) -> int:
    """The id that the next row of `table` gets."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return int(found[0]) + 1 if found else 1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
