"""Looking into and tending the archive: counts, ranges, republishing, dead letters, retention.

Long jobs work in slices, each a short transaction, so that archiving and publishing never wait for them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from teg.adapters.gateway_db import unproven
from teg.adapters.gateway_db.counters import count, counters
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import KEPT, insert_records
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.validation import Record, validate

SLICE = 5_000
#: Dead letters may be large, so fewer go at a time.
LETTER_SLICE = 100
#: Dead letters get a tenth of the quota: a controller that writes nonsense must not push measurements out.
DEAD_LETTER_SHARE = 10
DAY_MS = 86_400_000
_COUNTED = ("accepted", "delivered", "set_aside", "evicted", "discarded", "lost")


class ArchiveMaintenance:
    """`telemetry.retention.Maintenance`, and what the archive calls need. Ranges include both ends."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def mark_for_publishing(self, start_ms: int, end_ms: int) -> int:
        """Put kept records of the range into the outbox again, in one transaction; returns how many are in range."""
        with self._database.transaction() as connection:
            unproven.republished(connection, start_ms, end_ms)
            return connection.execute(
                "INSERT OR IGNORE INTO outbox (lane, record_id) SELECT ?, id FROM record"
                f" WHERE ts BETWEEN ? AND ? AND kind = {KEPT}"
                " AND NOT EXISTS (SELECT 1 FROM outbox WHERE lane = ? AND record_id = record.id)",
                (Stream.REPUBLISH, start_ms, end_ms, Stream.DATA),
            ).rowcount

    def discard(self, start_ms: int, end_ms: int) -> int:
        """Delete delivered records of the range; what still waits for its PUBACK stays. Returns how many went."""
        total = 0
        while deleted := self._delete_delivered("discarded", "ts BETWEEN ? AND ?", (start_ms, end_ms)):
            total += deleted
        return total

    def stats(self, start_ms: int | None = None, end_ms: int | None = None) -> dict[str, Any]:
        """Rows, bytes of text, first and last ts of the whole archive, and counts per UTC day of the range."""
        rows, text_bytes, first, last = self._database.rows(
            f"SELECT count(*), coalesce(sum(length(message)), 0), min(ts), max(ts) FROM record WHERE kind = {KEPT}"
        )[0]
        days = self._database.rows(
            f"SELECT strftime('%Y-%m-%d', ts / 1000, 'unixepoch'), count(*) FROM record WHERE kind = {KEPT}"
            " AND ts BETWEEN ? AND ? GROUP BY ts / ? ORDER BY ts / ? LIMIT 1000",
            (start_ms or 0, 1 << 62 if end_ms is None else end_ms, DAY_MS, DAY_MS),
        )
        return {
            "rows": rows,
            "message_bytes": text_bytes,
            "file_bytes": self._database.size_bytes(),
            "first_ts_ms": first,
            "last_ts_ms": last,
            "rows_per_day": dict(days),
        }

    def counts(self) -> dict[str, Any]:
        """The account: accepted = stored + acknowledged + pending + evicted + lost; all exact now.

        What was set aside is extra. `delivered` is what was acknowledged, proven to be stored or not.
        """
        waiting = dict(self._database.rows("SELECT lane, count(*) FROM outbox GROUP BY lane"))
        oldest = self._database.rows(
            "SELECT r.ts FROM outbox o JOIN record r ON r.id = o.record_id WHERE o.lane = ? ORDER BY record_id LIMIT 1",
            (Stream.DATA,),
        )
        kept = counters(self._database)
        names = ("accepted", "delivered", "stored", "set_aside", "evicted", "discarded", "lost")
        return {
            **{name: kept.get(name, 0) for name in names},
            "acknowledged": kept.get("delivered", 0) - kept.get("stored", 0),
            "pending": waiting.get(Stream.DATA, 0),
            "oldest_pending_ts": oldest[0][0] if oldest else None,
            "republish_pending": waiting.get(Stream.REPUBLISH, 0),
            "own_pending": waiting.get(Stream.OWN, 0),
            "dead_letters": self._database.rows("SELECT count(*) FROM dead_letter")[0][0],
        }

    def dead_letters(self, limit: int = 20, before_id: int | None = None) -> list[dict[str, Any]]:
        """Newest first; the message is cut to 500 characters for the eye, the table keeps it whole."""
        found = self._database.rows(
            "SELECT id, source_row, type, CAST(substr(message, 1, 500) AS BLOB), length(message), reason, set_aside_ms"
            " FROM dead_letter WHERE id < ? ORDER BY id DESC LIMIT ?",
            (1 << 62 if before_id is None else before_id, limit),
        )
        names = ("id", "inbox_row", "type", "message", "message_bytes", "reason", "set_aside_ms")
        return [
            dict(zip(names, (*row[:3], (row[3] or b"").decode(errors="replace"), *row[4:]), strict=True))
            for row in found
        ]

    def dead_letter(self, letter_id: int) -> dict[str, Any] | None:
        """The whole of one, its message as it came."""
        found = self._database.rows(
            "SELECT id, source_row, type, CAST(message AS BLOB), reason, set_aside_ms FROM dead_letter WHERE id = ?",
            (letter_id,),
        )
        names = ("id", "inbox_row", "type", "message", "reason", "set_aside_ms")
        return dict(zip(names, found[0], strict=True)) if found else None

    def retry_dead_letters(self, ids: Sequence[int] | None) -> int:
        """Judge letters again by today's rules and put the acceptable ones on their way; returns how many."""
        letters = self._database.rows(
            f"SELECT id, source_row, type, message FROM dead_letter WHERE {self._chosen(ids)} ORDER BY id LIMIT 10000"
        )
        accepted = 0
        with self._database.transaction() as connection:
            for letter_id, row_id, row_type, message in letters:
                verdict = validate(row_id, bytearray(row_type.encode()), bytearray(message))
                if isinstance(verdict, Record):
                    insert_records(connection, [verdict], Stream.DATA)
                    connection.execute("DELETE FROM dead_letter WHERE id = ?", (letter_id,))
                    accepted += 1
            count(connection, accepted=accepted, set_aside=-accepted)
        return accepted

    def drop_dead_letters(self, ids: Sequence[int] | None) -> int:
        with self._database.transaction() as connection:
            return connection.execute(f"DELETE FROM dead_letter WHERE {self._chosen(ids)}").rowcount

    def shrink(self, max_bytes: int, before_ms: int | None) -> Mapping[str, int]:
        """Delete what is past its age, then in the order of `_evict_something` until the quota holds; counts what went.

        `expired` were delivered; `evicted` are measurements that never were: the caller says so loudly.
        """
        gone = {"expired": 0, "evicted": 0}
        while before_ms is not None and (deleted := self._delete_delivered("expired", "ts < ?", (before_ms,))):
            gone["expired"] += deleted
        while self._database.size_bytes() > max_bytes and (went := self._evict_something(max_bytes)):
            counter, rows = went
            gone[counter] = gone.get(counter, 0) + rows
        self._database.rows("PRAGMA incremental_vacuum(2000)")
        return gone

    def _evict_something(self, max_bytes: int) -> tuple[str, int] | None:
        """One slice of the least valuable there is; undelivered measurements are the last to go (docs/telemetry.md)."""
        if self._dead_letter_bytes() > max_bytes // DEAD_LETTER_SHARE and (rows := self._drop_oldest_letters()):
            return "dead_letters_evicted", rows
        if rows := self._delete_delivered("expired", "1", ()):
            return "expired", rows
        for lane, counter in ((Stream.REPUBLISH, "republish_cancelled"), (Stream.OWN, "own_evicted")):
            if rows := self._evict_lane(lane, counter):
                return counter, rows
        if rows := self._drop_oldest_letters():
            return "dead_letters_evicted", rows
        if rows := self._evict_unproven() or self._evict_lane(Stream.DATA, "evicted"):
            return "evicted", rows
        return None

    def checkpoint(self) -> None:
        self._database.checkpoint()

    def _delete_delivered(self, counter: str, where: str, parameters: tuple[int, ...]) -> int:
        with self._database.transaction() as connection:
            deleted = connection.execute(
                f"DELETE FROM record WHERE id IN (SELECT id FROM record WHERE kind = {KEPT} AND {where}"
                " AND NOT EXISTS (SELECT 1 FROM outbox WHERE record_id = record.id AND lane IN (0, 1, 2))"
                f" AND {unproven.PROVEN} ORDER BY id LIMIT {SLICE})",
                parameters,
            ).rowcount
            count(connection, **{counter: deleted})
        return deleted

    def _evict_unproven(self) -> int:
        """Most likely the server has these; still, nobody knows, so they go as late as what was never sent."""
        with self._database.transaction() as connection:
            return unproven.evict_unproven(connection, SLICE)

    def _evict_lane(self, lane: Stream, counter: str) -> int:
        """The oldest rows of a lane, undelivered; of the republished ones only the order goes, they were delivered."""
        with self._database.transaction() as connection:
            sql = "SELECT record_id FROM outbox WHERE lane = ? ORDER BY record_id LIMIT ?"
            ids = connection.execute(sql, (lane, SLICE)).fetchall()
            if lane == Stream.REPUBLISH:
                connection.executemany(f"DELETE FROM outbox WHERE lane = {lane:d} AND record_id = ?", ids)
            else:
                connection.executemany("DELETE FROM outbox WHERE record_id = ?", ids)
                connection.executemany("DELETE FROM record WHERE id = ?", ids)
            count(connection, **{counter: len(ids)})
        return len(ids)

    def _dead_letter_bytes(self) -> int:
        return int(self._database.rows("SELECT coalesce(sum(length(message)), 0) FROM dead_letter")[0][0])

    def _drop_oldest_letters(self) -> int:
        oldest = f"SELECT id FROM dead_letter ORDER BY id LIMIT {LETTER_SLICE}"
        with self._database.transaction() as connection:
            rows = connection.execute(f"DELETE FROM dead_letter WHERE id IN ({oldest})").rowcount
            count(connection, dead_letters_evicted=rows)
        return rows

    @staticmethod
    def _chosen(ids: Sequence[int] | None) -> str:
        return "1" if ids is None else f"id IN ({','.join(str(int(letter)) for letter in ids) or 'NULL'})"
