"""What `TEG_REPORT` decided, kept beside the outbox it was decided on; and which keys of a record go.

A record that is held leaves the outbox in the transaction that counts it. Of one that goes with some of its keys these
are noted until it is proven stored, because an ended connection may send it again.
"""

from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any

import orjson

from teg.adapters.gateway_db import unproven
from teg.adapters.gateway_db.chosen_keys import choose
from teg.adapters.gateway_db.counters import count
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import KEPT, TRANSIENT, insert_records, next_id
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.thinning_ports import Decisions, KeyMemory, Memory, Undecided

#: Of one look: records may be of 60 kB each.
READ_BYTES = 1 << 20

_UNDECIDED = (
    "SELECT r.id, r.ts, r.kind, CAST(coalesce(r.payload, r.message) AS BLOB) FROM outbox o"
    f" JOIN record r ON r.id = o.record_id WHERE o.lane = {Stream.DATA:d} AND o.record_id > ?"
    " ORDER BY o.record_id LIMIT ?"
)
_ARCHIVED = (
    "SELECT id, ts, kind, CAST(coalesce(payload, message) AS BLOB) FROM record"
    f" WHERE id BETWEEN ? AND ? AND kind = {KEPT} ORDER BY id LIMIT ?"
)


class ThinnedOutbox:
    """`telemetry.thinning.ThinningStore`."""

    def __init__(self, database: Database, note: Callable[[Connection, int, int], None] = lambda *_: None) -> None:
        """`note` as for `outbox.RecordTable`: it sees every batch of new records."""
        self._database = database
        self._note = note

    def memory(self) -> Memory:
        rules, upto_id = self._database.rows("SELECT rules, upto_id FROM report_position")[0]
        keys = self._database.rows("SELECT key, memory FROM report_key")
        return Memory(rules, upto_id, {key: KeyMemory(**orjson.loads(kept)) for key, kept in keys})

    def undecided(self, after_id: int, most: int) -> list[Undecided]:
        return self._read(_UNDECIDED, (after_id, most))

    def archived(self, first_id: int, last_id: int, most: int) -> list[Undecided]:
        return self._read(_ARCHIVED, (first_id, last_id, most))

    def _read(self, sql: str, parameters: Sequence[int]) -> list[Undecided]:
        found: list[Undecided] = []
        size = 0
        with self._database.reading(sql, parameters) as rows:
            for row_id, ts_ms, kind, text in rows:
                found.append(Undecided(row_id, ts_ms, kind == KEPT, text))
                size += len(text)
                if size >= READ_BYTES:
                    break
        return found

    def write(self, decisions: Decisions) -> None:
        """Not fsynced, as the marks of delivery are not: a power cut takes a decision together with all that followed
        from it, so it is taken again."""
        with self._database.transaction(durable=False) as connection:
            _hold(connection, decisions.held)
            for row_id, keys in decisions.cut:
                choose(connection, Stream.DATA, (row_id,), keys)
            self._insert_own(connection, decisions.own)
            _remember(connection, decisions)
            _forget_chosen(connection)

    def _insert_own(self, connection: Connection, own: Sequence[tuple[int, bytes]]) -> None:
        if not own:
            return
        self._note(connection, next_id(connection, "record"), next_id(connection, "dead_letter"))
        rows = [(None, ts_ms, len(orjson.loads(text)["values"]), text.decode(), None, TRANSIENT) for ts_ms, text in own]
        insert_records(connection, rows, Stream.OWN)


def _hold(connection: Connection, ids: Sequence[int]) -> None:
    """What was evicted since it was decided does not count."""
    held = 0
    for first, last in unproven.id_runs(ids):
        sql = f"DELETE FROM outbox WHERE lane = {Stream.DATA:d} AND record_id BETWEEN ? AND ?"
        held += connection.execute(sql, (first, last)).rowcount
    count(connection, held=held)


def _remember(connection: Connection, decisions: Decisions) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO report_key (key, memory) VALUES (?, ?)",
        [(key, _as_json(kept)) for key, kept in decisions.keys.items() if kept is not None],
    )
    connection.executemany(
        "DELETE FROM report_key WHERE key = ?", [(key,) for key, kept in decisions.keys.items() if kept is None]
    )
    connection.execute("UPDATE report_position SET upto_id = ?", (decisions.upto_id,))
    if decisions.rules is not None:
        connection.execute("UPDATE report_position SET rules = ?", (decisions.rules,))


def _as_json(kept: KeyMemory) -> str:
    known: dict[str, Any] = {"first_id": kept.first_id, "ts_ms": kept.ts_ms, "value": kept.value}
    return orjson.dumps({name: value for name, value in known.items() if value is not None}).decode()


def _forget_chosen(connection: Connection) -> None:
    """Of records that neither wait nor are unproven: everything before the first that does."""
    first = (
        f"SELECT min(coalesce((SELECT min(record_id) FROM outbox WHERE lane = {Stream.DATA:d}), 1 << 62),"
        f" coalesce((SELECT min(first_id) FROM unproven WHERE lane = {Stream.DATA:d}), 1 << 62))"
    )
    connection.execute(f"DELETE FROM chosen_keys WHERE lane = {Stream.DATA:d} AND record_id < ({first})")
