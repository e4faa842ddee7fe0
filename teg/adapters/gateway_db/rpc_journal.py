"""The journal of the remote calls in `gateway.db`: table `rpc_call`, at most once and the audit in one."""

from collections.abc import Sequence
from typing import Any

from teg.adapters.gateway_db.database import Database
from teg.domain.rpc.journal import CallKey, Entry, Instant, State

#: Lines kept: of calls with effects, and of quick ones (a dashboard's pings must not push the others out).
KEPT_EFFECTS = 2_000
KEPT_QUICK = 2_000
#: Answers of settled calls older than this many entries are shortened: they are not repeated any more.
WHOLE_ANSWERS = 50
SHORT_ANSWER = 300

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS rpc_call (id INTEGER PRIMARY KEY AUTOINCREMENT, request_id INTEGER NOT NULL,"
    " method TEXT NOT NULL, digest BLOB NOT NULL, params TEXT NOT NULL, state TEXT NOT NULL, answer TEXT,"
    " received_ms INTEGER NOT NULL, duration_ms INTEGER, at_boot_id TEXT NOT NULL, at_uptime_s REAL NOT NULL)",
    "CREATE INDEX IF NOT EXISTS rpc_call_key ON rpc_call (request_id, method, digest) WHERE state != 'done'",
    "CREATE INDEX IF NOT EXISTS rpc_call_effect ON rpc_call (method, state) WHERE state != 'done'",
)

_COLUMNS = "id, request_id, method, digest, params, state, answer, received_ms, duration_ms, at_boot_id, at_uptime_s"
_INSERT = (
    "INSERT INTO rpc_call (request_id, method, digest, params, state, answer, received_ms, duration_ms, at_boot_id,"
    " at_uptime_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class RpcJournalTable:
    """`rpc.journal.JournalTable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, key: CallKey) -> Entry | None:
        where = "WHERE request_id = ? AND method = ? AND digest = ? AND state != 'done' ORDER BY id DESC LIMIT 1"
        return _first(self._entries(where, key.request_id, key.method, key.digest))

    def begin(self, key: CallKey, params: str, now: Instant) -> int:
        row = (key.request_id, key.method, key.digest, params, State.BEGUN, None)
        with self._database.transaction() as connection:
            inserted = connection.execute(_INSERT, (*row, now.wall_ms, None, now.boot_id, now.uptime_s))
            return int(inserted.lastrowid or 0)

    def change(
        self, entry_id: int, state: State, now: Instant, answer: str | None = None, duration_ms: int | None = None
    ) -> None:
        """Losing an `ACKNOWLEDGED` in a power cut only makes the answer stand longer, so it need not be fsynced."""
        with self._database.transaction(durable=state != State.ACKNOWLEDGED) as connection:
            connection.execute(
                "UPDATE rpc_call SET state = ?, at_boot_id = ?, at_uptime_s = ?, answer = coalesce(?, answer),"
                " duration_ms = coalesce(?, duration_ms) WHERE id = ?",
                (state, now.boot_id, now.uptime_s, answer, duration_ms, entry_id),
            )

    def last_acted(self, method: str) -> Entry | None:
        return _first(self._entries("WHERE method = ? AND state = 'acted' ORDER BY id DESC LIMIT 1", method))

    def begun(self) -> list[Entry]:
        return self._entries("WHERE state = 'begun' ORDER BY id")

    def append(self, entries: Sequence[Entry]) -> None:
        with self._database.transaction() as connection:
            connection.executemany(_INSERT, [_row(entry) for entry in entries])

    def prune(self) -> None:
        """Writes only when there is something to do: it is called every minute."""
        if self._too_many("!=", KEPT_EFFECTS) or self._too_many("=", KEPT_QUICK) or self._long_answers():
            with self._database.transaction(durable=False) as connection:
                for comparison, kept in (("!=", KEPT_EFFECTS), ("=", KEPT_QUICK)):
                    connection.execute(
                        f"DELETE FROM rpc_call WHERE id <= (SELECT id FROM rpc_call WHERE state {comparison} 'done'"
                        f" ORDER BY id DESC LIMIT 1 OFFSET ?) AND state {comparison} 'done'",
                        (kept,),
                    )
                connection.execute(
                    f"UPDATE rpc_call SET answer = json_quote(substr(answer, 1, ?)) WHERE {_LONG}",
                    (SHORT_ANSWER, SHORT_ANSWER * 2, WHOLE_ANSWERS),
                )

    def recent(self, count: int) -> list[Entry]:
        return self._entries("ORDER BY id DESC LIMIT ?", count)[::-1]

    def _entries(self, where: str, *parameters: Any) -> list[Entry]:
        return [_entry(row) for row in self._database.rows(f"SELECT {_COLUMNS} FROM rpc_call {where}", parameters)]

    def _too_many(self, comparison: str, kept: int) -> bool:
        found = self._database.rows(f"SELECT count(*) FROM rpc_call WHERE state {comparison} 'done'")
        return bool(found[0][0] > kept)

    def _long_answers(self) -> bool:
        return bool(
            self._database.rows(f"SELECT 1 FROM rpc_call WHERE {_LONG} LIMIT 1", (SHORT_ANSWER * 2, WHOLE_ANSWERS))
        )


_LONG = (
    "length(answer) > ? AND state IN ('acknowledged', 'acted')"
    " AND id <= (SELECT id FROM rpc_call WHERE state != 'done' ORDER BY id DESC LIMIT 1 OFFSET ?)"
)


def _first(entries: list[Entry]) -> Entry | None:
    return entries[0] if entries else None


def _row(entry: Entry) -> tuple[Any, ...]:
    key = entry.key
    head = (key.request_id, key.method, key.digest, entry.params, entry.state, entry.answer)
    return (*head, entry.received_ms, entry.duration_ms, entry.at_boot_id, entry.at_uptime_s)


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(
        id=row[0],
        key=CallKey(row[1], row[2], bytes(row[3])),
        params=row[4],
        state=State(row[5]),
        answer=row[6],
        received_ms=row[7],
        duration_ms=row[8],
        at_boot_id=row[9],
        at_uptime_s=row[10],
    )
