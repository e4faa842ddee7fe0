"""Looking into and tending the archive: counts, ranges, republishing, dead letters, retention.

Long jobs work in slices, each a short transaction, so that archiving and publishing wait for one slice at most.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from teg.adapters.gateway_db import quarantine
from teg.adapters.gateway_db.connections import sqlite_errors
from teg.adapters.gateway_db.counters import count, counters
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.eviction import LETTER_SLICE, Eviction
from teg.adapters.gateway_db.outbox import KEPT, insert_records
from teg.adapters.gateway_db.republish import Republish
from teg.adapters.gateway_db.statistics import statistics
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.validation import Record, validate

_TALLY = ("accepted", "delivered", "stored", "set_aside", "held", "evicted", "discarded", "lost", "moved")


class ArchiveMaintenance:
    """`telemetry.retention.Maintenance`, and what the archive calls need. Ranges include both ends."""

    def __init__(
        self, database: Database, write_marks: Callable[[], None] = lambda: None, thinned: bool = False
    ) -> None:
        """`write_marks` brings the outbox up to date: without it acknowledged rows may still seem to wait.

        `thinned`: not all that waits will be sent (`TEG_REPORT`).
        """
        self._thinned = thinned
        self._republish = Republish(database)
        self._write_marks = write_marks
        self._database = database
        self._eviction = Eviction(database, write_marks)

    def mark_for_publishing(
        self,
        start_ms: int,
        end_ms: int,
        progress: Callable[[int], None] = lambda _: None,
        keys: Sequence[str] | None = None,
    ) -> int:
        """Put kept records of the range, or these keys of them, into the outbox again, raw; returns how many.

        Raises:
            Refused: other keys of the range are on their way.
        """
        self._write_marks()
        thinned = self._thinned or self._database.rows("SELECT rules FROM report_position") != [("",)]
        return self._republish.mark(start_ms, end_ms, progress, keys, thinned)

    def discard(self, start_ms: int, end_ms: int) -> int:
        """Delete delivered records of the range; what still waits for its PUBACK stays. Returns how many went."""
        self._write_marks()
        return self._eviction.discard(start_ms, end_ms)

    def kept(self, start_ms: int, end_ms: int) -> int:
        sql = f"SELECT count(*) FROM record WHERE kind = {KEPT} AND ts BETWEEN ? AND ?"
        return int(self._database.rows(sql, (start_ms, end_ms))[0][0])

    def stats(self, start_ms: int | None = None, end_ms: int | None = None) -> dict[str, Any]:
        """Rows, bytes of text, first and last ts, and counts per UTC day, all of the range (default: everything)."""
        found = statistics(self._database, start_ms or 0, 1 << 62 if end_ms is None else end_ms)
        return {**asdict(found), "file_bytes": self._database.size_bytes()}

    def counts(self) -> dict[str, Any]:
        """The account: accepted = stored + acknowledged + pending + held + evicted + lost; all exact now.

        What was set aside is extra. `delivered` is what was acknowledged, proven to be stored or not.
        """
        with suppress(Unavailable):  # a disk that takes no marks is no reason to tell nothing: so far they do wait
            self._write_marks()
        waiting = {lane: self._waiting(lane) for lane in Stream}
        oldest = self._database.rows(
            "SELECT r.ts FROM outbox o JOIN record r ON r.id = o.record_id WHERE o.lane = ? ORDER BY record_id LIMIT 1",
            (Stream.DATA,),
        )
        kept = counters(self._database)
        return {
            **{name: kept.get(name, 0) for name in _TALLY},
            "acknowledged": kept.get("delivered", 0) - kept.get("stored", 0),
            "pending": waiting[Stream.DATA],
            "oldest_pending_ts": oldest[0][0] if oldest else None,
            "republish_pending": waiting[Stream.REPUBLISH],
            "own_pending": waiting[Stream.OWN],
            "dead_letters": self._database.rows("SELECT count(*) FROM dead_letter")[0][0],
        }

    def tally(self) -> dict[str, int]:
        """The counters alone, and what follows from them: costs the same however much waits, and writes nothing.

        Acknowledged rows that are not marked yet still wait here, for two seconds at most.
        """
        kept = counters(self._database)
        tally = {name: kept.get(name, 0) for name in _TALLY}
        gone = tally["delivered"] + tally["held"] + tally["evicted"] + tally["lost"]
        return {**tally, "pending": max(0, tally["accepted"] - gone)}

    def _waiting(self, lane: Stream) -> int:
        return int(self._database.rows("SELECT count(*) FROM outbox WHERE lane = ?", (lane,))[0][0])

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
        """Validate letters again by today's rules and put the acceptable ones on their way; returns how many."""
        return sum(self._retry(chosen) for chosen in self._chosen(ids))

    def _retry(self, ids: Sequence[int]) -> int:
        keys = ",".join(map(str, ids))
        letters = self._database.rows(f"SELECT id, source_row, type, message FROM dead_letter WHERE id IN ({keys})")
        verdicts = [
            (letter_id, validate(row_id, bytearray(row_type.encode()), bytearray(message)))
            for letter_id, row_id, row_type, message in letters
        ]
        accepted = 0
        with self._database.transaction() as connection:
            for letter_id, verdict in verdicts:
                gone = (
                    connection.execute("DELETE FROM dead_letter WHERE id = ?", (letter_id,))
                    if isinstance(verdict, Record)
                    else None
                )
                if gone is not None and gone.rowcount and isinstance(verdict, Record):
                    insert_records(connection, [verdict], Stream.DATA)
                    accepted += 1
            count(connection, accepted=accepted, set_aside=-accepted)
        return accepted

    def drop_dead_letters(self, ids: Sequence[int] | None) -> int:
        return sum(self._drop(chosen) for chosen in self._chosen(ids))

    def _drop(self, ids: Sequence[int]) -> int:
        with self._database.transaction() as connection:
            return connection.executemany(
                "DELETE FROM dead_letter WHERE id = ?", [(letter,) for letter in ids]
            ).rowcount

    def _chosen(self, ids: Sequence[int] | None) -> Iterator[list[int]]:
        """In slices; all of them means those that are there now, not those that come back meanwhile."""
        if ids is not None:
            chosen = [int(letter) for letter in ids]
            yield from (chosen[place : place + LETTER_SLICE] for place in range(0, len(chosen), LETTER_SLICE))
            return
        last = self._database.rows("SELECT max(id) FROM dead_letter")[0][0] or 0
        sql = "SELECT id FROM dead_letter WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
        after = 0
        while found := self._database.rows(sql, (after, last, LETTER_SLICE)):
            after = found[-1][0]
            yield [letter for (letter,) in found]

    def shrink(self, max_bytes: int, before_ms: int | None, soft_bytes: int | None = None) -> Mapping[str, int]:
        return self._eviction.shrink(max_bytes, before_ms, soft_bytes)

    def prune_quarantine(self, max_bytes: int) -> int:
        with sqlite_errors(self._database.path):
            return quarantine.prune(self._database.path, max_bytes)

    def file_bytes(self) -> int:
        return self._database.file_bytes()

    def checkpoint(self) -> None:
        self._database.checkpoint()
