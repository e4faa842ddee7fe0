"""Of which records only some keys go, and which: those that `TEG_REPORT` lets through, those a republish asked for."""

from collections.abc import Collection, Sequence
from sqlite3 import Connection

import orjson

from teg.adapters.gateway_db.database import Database
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.validation import only_keys

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS chosen_keys (lane INTEGER NOT NULL, record_id INTEGER NOT NULL, keys TEXT NOT NULL,"
    " PRIMARY KEY (lane, record_id)) WITHOUT ROWID",
    # What is remembered of a key, and how far the decisions went (`thinned.py`).
    "CREATE TABLE IF NOT EXISTS report_key (key TEXT PRIMARY KEY, memory TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS report_position (one INTEGER PRIMARY KEY CHECK (one = 1), rules TEXT NOT NULL,"
    " upto_id INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO report_position VALUES (1, '', 0)",
)

#: id, points, kind, JSON
_Row = tuple[int, int, int, bytes]


def cut(database: Database, lane: Stream, rows: list[_Row]) -> list[_Row]:
    """Rows of `lane`, ascending, with the keys that go. Where none were chosen this is one look for all of them."""
    if not rows or lane == Stream.OWN:
        return rows
    sql = "SELECT record_id, keys FROM chosen_keys WHERE lane = ? AND record_id BETWEEN ? AND ?"
    chosen = dict(database.rows(sql, (lane, rows[0][0], rows[-1][0])))
    return [_cut(row, orjson.loads(chosen[row[0]])) if row[0] in chosen else row for row in rows] if chosen else rows


def _cut(row: _Row, keys: Sequence[str]) -> _Row:
    text, points = only_keys(row[3], keys)
    return (row[0], points, row[2], text) if points else row


def choose(connection: Connection, lane: Stream, ids: Collection[int], keys: Sequence[str]) -> None:
    text = orjson.dumps(keys).decode()
    sql = "INSERT OR REPLACE INTO chosen_keys (lane, record_id, keys) VALUES (?, ?, ?)"
    connection.executemany(sql, [(lane, row_id, text) for row_id in ids])
