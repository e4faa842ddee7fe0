"""What the server has acknowledged and nobody has proven to be stored: runs of ids, until a proof or a lost link.

A run is exact (every id from its first to its last was in one acknowledged publish of its stream) and carries the
number of the watermark that was next when it was acknowledged; how a watermark proves it: `telemetry/storage_proof.py`.
Everything here is as durable as the marks of delivery (docs/decisions/0011): a power cut takes a mark and its run
together, so the rows are sent again; a proof that it takes only makes them be sent again, too.
"""

from collections.abc import Iterable, Sequence
from sqlite3 import Connection

import orjson

from teg.adapters.gateway_db.counters import count
from teg.adapters.gateway_db.database import Database
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.storage_proof import Missing, ProofState, Watermark

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS unproven (lane INTEGER NOT NULL, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL,"
    " mark INTEGER NOT NULL, transient INTEGER NOT NULL, PRIMARY KEY (lane, first_id)) WITHOUT ROWID",
    # What was proven by which watermark: for the day on which the server shows an older one (a restored backup).
    "CREATE TABLE IF NOT EXISTS proven (mark INTEGER NOT NULL, first_id INTEGER NOT NULL, last_id INTEGER NOT NULL,"
    " PRIMARY KEY (mark, first_id)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS proof (one INTEGER PRIMARY KEY CHECK (one = 1), archive TEXT NOT NULL,"
    " next_mark INTEGER NOT NULL, proven_mark INTEGER NOT NULL, keeps INTEGER, missing TEXT)",
    # Acknowledged once, and on its way again: the server may have it already, with the time that it had then.
    "CREATE TABLE IF NOT EXISTS sent_before (first_id INTEGER PRIMARY KEY, last_id INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO proof VALUES (1, lower(hex(randomblob(6))), 1, 0, NULL, NULL)",
)

#: Of a run whose connection ended while it was unproven; the server's habit is not known yet, so it waits.
LOST = -1
#: Watermarks whose runs are remembered; an older one than these means the whole archive.
REMEMBERED_MARKS = 10_000

_Run = tuple[int, int]


def note_acknowledged(connection: Connection, deliveries: Iterable[Delivery]) -> bool:
    """Inside the transaction that takes `deliveries` out of the outbox. False: nothing is noted for this server."""
    mark, keeps = connection.execute("SELECT next_mark, keeps FROM proof").fetchone()
    if keeps == 0:
        return False
    for delivery in deliveries:
        for run in id_runs(delivery.ids):
            _add(connection, delivery.lane, run, mark, delivery.transient)
    return True


def id_runs(ids: Sequence[int]) -> list[_Run]:
    """Ascending ids as (first, last) of what is consecutive."""
    if ids and ids[-1] - ids[0] == len(ids) - 1:
        return [(ids[0], ids[-1])]
    runs: list[_Run] = []
    for row_id in ids:
        if runs and runs[-1][1] == row_id - 1:
            runs[-1] = (runs[-1][0], row_id)
        else:
            runs.append((row_id, row_id))
    return runs


def forget_transient(connection: Connection, deliveries: Iterable[Delivery]) -> None:
    """What is not kept and needs no proof is deleted once it is acknowledged."""
    for delivery in deliveries:
        if delivery.transient:
            _forget_runs(connection, id_runs(delivery.ids))


def _add(connection: Connection, lane: Stream, run: _Run, mark: int, transient: bool) -> None:
    """Longer the run before it where that is possible: at one record a second this keeps the table at a few rows."""
    grown = connection.execute(
        "UPDATE unproven SET last_id = ? WHERE lane = ? AND first_id ="
        " (SELECT max(first_id) FROM unproven WHERE lane = ? AND first_id < ?)"
        " AND last_id = ? AND mark = ? AND transient = ?",
        (run[1], lane, lane, run[0], run[0] - 1, mark, transient),
    ).rowcount
    if not grown:
        connection.execute(
            "INSERT INTO unproven VALUES (?, ?, ?, ?, ?) ON CONFLICT (lane, first_id) DO UPDATE SET"
            " last_id = max(last_id, excluded.last_id), mark = excluded.mark, transient = excluded.transient",
            (lane, *run, mark, transient),
        )


class UnprovenTable:
    """`telemetry.storage_proof.ProofStore`, and the publisher's half of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> ProofState:
        archive, proven, keeps, missing = self._database.rows("SELECT archive, proven_mark, keeps, missing FROM proof")[
            0
        ]
        kept = None if keeps is None else bool(keeps)
        return ProofState(archive, proven, kept, Missing(**orjson.loads(missing)) if missing else None)

    def unproven(self) -> bool:
        return bool(self._database.rows("SELECT 1 FROM unproven LIMIT 1"))

    def next_watermark(self) -> Watermark:
        """Whatever is acknowledged from now on belongs to the watermark after this one."""
        with self._database.transaction(durable=False) as connection:
            archive, number = connection.execute(
                "UPDATE proof SET next_mark = next_mark + 1 RETURNING archive, next_mark - 1"
            ).fetchone()
        return Watermark.fresh(archive, number)

    def prove(self, mark: int) -> int:
        """Everything acknowledged before watermark `mark` was published is stored; returns how many measurements."""
        with self._database.transaction(durable=False) as connection:
            sql = "SELECT lane, first_id, last_id, transient FROM unproven WHERE mark BETWEEN 0 AND ?"
            runs = connection.execute(sql, (mark,)).fetchall()
            _forget_runs(connection, [(first, last) for _, first, last, transient in runs if transient])
            connection.executemany(
                "INSERT OR REPLACE INTO proven VALUES (?, ?, ?)",
                [(mark, first, last) for lane, first, last, _ in runs if lane != Stream.OWN],
            )
            connection.execute("DELETE FROM unproven WHERE mark BETWEEN 0 AND ?", (mark,))
            connection.execute("DELETE FROM proven WHERE mark < ?", (mark - REMEMBERED_MARKS,))
            connection.execute("UPDATE proof SET proven_mark = ?", (mark,))
            stored: int = sum(last - first + 1 for lane, first, last, _ in runs if lane == Stream.DATA)
            count(connection, stored=stored)
        return stored

    def keeps_watermarks(self, keeps: bool) -> int:
        """The server's habit is known. Returns how many rows of lost connections go again because of it."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE proof SET keeps = ?", (keeps,))
            if keeps:
                return _put_back(connection, f"mark = {LOST}")
            runs = connection.execute("SELECT first_id, last_id FROM unproven WHERE transient").fetchall()
            connection.execute("DELETE FROM unproven")
            _forget_runs(connection, runs)
        return 0

    def connection_ended(self) -> int:
        """Before anything is sent on a new connection; returns how many rows go again, 0 while it is not known."""
        if not self.unproven():
            return 0
        with self._database.transaction(durable=False) as connection:
            connection.execute(f"UPDATE unproven SET mark = {LOST}")
            (keeps,) = connection.execute("SELECT keeps FROM proof").fetchone()
            return _put_back(connection, f"mark = {LOST}") if keeps else 0

    def missing_since(self, mark: int | None) -> Missing | None:
        """The server shows watermark `mark` (None: none at all): what this archive still has that it may not have.

        A watermark that is found only says that everything before the one before it was stored. The answer is kept
        until somebody sends the range again.
        """
        where = "1" if mark is None or mark < self._oldest_remembered() else f"p.mark >= {mark:d}"
        first_ms, last_ms, rows = self._database.rows(
            "SELECT min(r.ts), max(r.ts), count(*) FROM proven p JOIN record r ON r.id BETWEEN p.first_id AND p.last_id"
            f" WHERE r.kind = 0 AND {where}"
        )[0]
        if not rows:
            return None
        missing = Missing(first_ms, last_ms, rows)
        with self._database.transaction() as connection:
            connection.execute("UPDATE proof SET missing = ?", (orjson.dumps(missing.as_dict()).decode(),))
        return missing

    def _oldest_remembered(self) -> int:
        return int(self._database.rows("SELECT coalesce(min(mark), 0) FROM proven")[0][0])


def republished(connection: Connection, start_ms: int, end_ms: int) -> None:
    """Inside the transaction that puts a range on its way again: an offer that it covers has been taken up."""
    connection.execute(
        "UPDATE proof SET missing = NULL WHERE json_extract(missing, '$.first_ms') >= ?"
        " AND json_extract(missing, '$.last_ms') <= ?",
        (start_ms, end_ms),
    )


#: Condition on `record`: no acknowledged publish of it is still unproven.
PROVEN = (
    "NOT EXISTS (SELECT 1 FROM unproven u WHERE u.lane IN (0, 1, 2)"
    " AND u.first_id <= record.id AND u.last_id >= record.id)"
)


def evict_unproven(connection: Connection, most: int) -> int:
    """Delete the oldest rows that are acknowledged only, to make room; they count as evicted: nobody knows more."""
    if orders := connection.execute("DELETE FROM unproven WHERE lane = ?", (Stream.REPUBLISH,)).rowcount:
        return orders  # only the order to send them again goes
    lane, first, last, mark, transient = connection.execute(
        "SELECT * FROM unproven ORDER BY first_id LIMIT 1"
    ).fetchone() or (None, 0, 0, 0, 0)
    if lane is None:
        return 0
    upto = min(last, first + most - 1)
    gone = connection.execute("DELETE FROM record WHERE id BETWEEN ? AND ?", (first, upto)).rowcount
    connection.execute("DELETE FROM unproven WHERE lane = ? AND first_id = ?", (lane, first))
    if upto < last:
        rest = (lane, upto + 1, last, mark, transient)
        connection.execute("INSERT OR REPLACE INTO unproven VALUES (?, ?, ?, ?, ?)", rest)
    if lane == Stream.DATA:
        count(connection, delivered=first - upto - 1, evicted=upto - first + 1)
    return gone


def _put_back(connection: Connection, which: str) -> int:
    """Unproven rows into the outbox again; those of the controller no longer count as delivered."""
    runs = connection.execute(f"SELECT lane, first_id, last_id FROM unproven WHERE {which}").fetchall()
    connection.execute(f"DELETE FROM unproven WHERE {which}")
    oldest = f"SELECT coalesce(min(record_id), 1 << 62) FROM outbox WHERE lane = {Stream.DATA:d}"
    connection.execute(f"DELETE FROM sent_before WHERE last_id < ({oldest})")
    total = 0
    for lane, first, last in runs:
        rows = connection.execute(
            "INSERT OR IGNORE INTO outbox (lane, record_id) SELECT ?, id FROM record WHERE id BETWEEN ? AND ?",
            (lane, first, last),
        ).rowcount
        total += rows
        connection.execute("INSERT OR REPLACE INTO sent_before VALUES (?, ?)", (first, last))
        if lane == Stream.DATA:
            count(connection, delivered=-rows)
    return total


def _forget_runs(connection: Connection, runs: Iterable[_Run]) -> None:
    connection.executemany(
        "DELETE FROM record WHERE id BETWEEN ? AND ? AND kind = 1"
        " AND NOT EXISTS (SELECT 1 FROM outbox WHERE record_id = record.id AND lane IN (0, 1, 2))",
        runs,
    )
