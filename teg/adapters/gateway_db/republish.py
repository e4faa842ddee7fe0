"""Archived records on their way once more: all of a range, or some of their keys; raw, whatever `TEG_REPORT` says."""

from collections.abc import Callable, Iterator, Sequence
from sqlite3 import Connection

import orjson

from teg.adapters.gateway_db import unproven
from teg.adapters.gateway_db.chosen_keys import choose
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import KEPT
from teg.domain.errors import Refused
from teg.domain.telemetry.ports import Stream

SLICE = 500
_LANE = f"{Stream.REPUBLISH:d}"
_ON_ITS_WAY = (
    f"EXISTS (SELECT 1 FROM outbox WHERE lane = {_LANE} AND record_id = chosen_keys.record_id)"
    f" OR EXISTS (SELECT 1 FROM unproven WHERE lane = {_LANE} AND chosen_keys.record_id BETWEEN first_id AND last_id)"
)


class Republish:
    """Ranges include both ends. Works in slices, each a short transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def mark(
        self, start_ms: int, end_ms: int, progress: Callable[[int], None], keys: Sequence[str] | None, thinned: bool
    ) -> int:
        """Returns how many records were put on their way. `thinned`: what still waits may be held back, so it counts.

        Raises:
            Refused: other keys of these records are on their way; both at once could not be told apart.
        """
        keys = None if keys is None else sorted(keys)
        self._keep_apart(start_ms, end_ms, keys)
        total = 0
        for first_ms, last_ms, last in self._slices(start_ms, end_ms):
            with self._database.transaction() as connection:
                if keys is None:
                    total += _whole(connection, first_ms, last_ms, thinned)
                else:
                    total += _some_keys(connection, first_ms, last_ms, keys, thinned)
                if last and keys is None:  # now the whole range is on its way
                    unproven.republished(connection, start_ms, end_ms)
            progress(total)
        return total

    def _slices(self, start_ms: int, end_ms: int) -> Iterator[tuple[int, int, bool]]:
        after_ms = start_ms - 1
        sql = "SELECT ts FROM record WHERE ts > ? AND ts <= ? ORDER BY ts LIMIT 1 OFFSET ?"
        while rows := self._database.rows(sql, (after_ms, end_ms, SLICE)):
            yield after_ms + 1, rows[0][0], False
            after_ms = rows[0][0]
        yield after_ms + 1, end_ms, True

    def _keep_apart(self, start_ms: int, end_ms: int, keys: Sequence[str] | None) -> None:
        if not self._database.rows(f"SELECT 1 FROM chosen_keys WHERE lane = {_LANE} LIMIT 1"):
            return
        with self._database.transaction() as connection:
            connection.execute(f"DELETE FROM chosen_keys WHERE lane = {_LANE} AND NOT ({_ON_ITS_WAY})")
        wanted = "" if keys is None else orjson.dumps(keys).decode()
        sql = (
            f"SELECT c.keys FROM chosen_keys c JOIN record r ON r.id = c.record_id WHERE c.lane = {_LANE}"
            " AND c.keys <> ? AND r.ts BETWEEN ? AND ? LIMIT 1"
        )
        if other := self._database.rows(sql, (wanted, start_ms, end_ms)):
            raise Refused(f"the keys {other[0][0]} of this range are still on their way: try again when they are sent")


def _chosen_rows(thinned: bool) -> str:
    """Of a range: those that are kept, and do not wait to be sent whole for the first time."""
    waits = f"EXISTS (SELECT 1 FROM outbox WHERE lane = {Stream.DATA:d} AND record_id = record.id)"
    return f"FROM record WHERE ts BETWEEN ? AND ? AND kind = {KEPT}" + ("" if thinned else f" AND NOT {waits}")


def _whole(connection: Connection, first_ms: int, last_ms: int, thinned: bool) -> int:
    marked: int = connection.execute(
        f"INSERT OR IGNORE INTO outbox (lane, record_id) SELECT {_LANE}, id {_chosen_rows(thinned)}",
        (first_ms, last_ms),
    ).rowcount
    return marked


def _some_keys(connection: Connection, first_ms: int, last_ms: int, keys: Sequence[str], thinned: bool) -> int:
    """Records that have one of the keys; one that is on its way whole, or was just now, is not cut."""
    found = connection.execute(
        f"SELECT id, CAST(coalesce(payload, message) AS BLOB) {_chosen_rows(thinned)}", (first_ms, last_ms)
    ).fetchall()
    ids = [row_id for row_id, text in found if not orjson.loads(text)["values"].keys().isdisjoint(keys)]
    insert = f"INSERT OR IGNORE INTO outbox (lane, record_id) VALUES ({_LANE}, ?)"
    marked = [row_id for row_id in ids if connection.execute(insert, (row_id,)).rowcount]
    whole = f"SELECT 1 FROM unproven WHERE lane = {_LANE} AND ? BETWEEN first_id AND last_id"
    choose(connection, Stream.REPUBLISH, [i for i in marked if not connection.execute(whole, (i,)).fetchone()], keys)
    return len(marked)
