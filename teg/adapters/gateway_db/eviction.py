"""What goes when there is no room: by age, by quota, by order of the operator; each slice a short transaction by key.

Rows are looked for outside of the write transaction, with a limit on the rows looked at; inside of it everything is
found by its key. So no slice grows with the archive, and archiving and publishing go on in between.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from teg.adapters.gateway_db import unproven
from teg.adapters.gateway_db.counters import count, counters
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import KEPT, LANES, ON_ITS_WAY
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ports import Stream

#: Rows looked at, and at most changed, in one slice.
SLICE = 500
#: Dead letters may be large, so fewer go at a time.
LETTER_SLICE = 50
#: Dead letters get a tenth of the quota: a controller that writes nonsense must not push measurements out.
DEAD_LETTER_SHARE = 10
#: Free pages given back to the file system at a time; each is moved and written.
VACUUM_PAGES = 200
#: Free pages that are kept for the next rows instead of being given back and taken again.
SPARE_PAGES = 500


@dataclass(frozen=True, slots=True)
class Room:
    """The bounds of the archive: `quota_bytes` for everything; below `soft_bytes` no undelivered measurement goes."""

    quota_bytes: int
    soft_bytes: int


class Eviction:
    """`shrink` and `discard` of `telemetry.retention.Maintenance` and the archive calls."""

    def __init__(self, database: Database, write_marks: Callable[[], None]) -> None:
        """`write_marks`: what is acknowledged is not to be evicted, and not to be told of, as if it never was sent."""
        self._database = database
        self._write_marks = write_marks
        self._looked_upto = 0
        self._delivered_then = -1

    def discard(self, start_ms: int, end_ms: int) -> int:
        """Delete delivered records of the range; what still waits for its PUBACK stays. Returns how many went."""
        return self._delete_by_age("discarded", start_ms, end_ms)

    def shrink(self, max_bytes: int, before_ms: int | None, soft_bytes: int | None = None) -> Mapping[str, int]:
        """Delete what is past its age, then in the order of `_evict_something` until the file fits; counts what went.

        `soft_bytes` (at most `max_bytes`) is what is aimed at without touching undelivered measurements.
        `expired` were delivered; `evicted` are measurements that never were: the caller says so loudly.
        """
        self._marked()
        room = Room(max_bytes, max_bytes if soft_bytes is None else min(soft_bytes, max_bytes))
        gone = {"expired": 0, "evicted": 0}
        if before_ms is not None:
            gone["expired"] += self._delete_by_age("expired", 0, before_ms - 1)
        letter_bytes = self._dead_letter_bytes() if self._database.file_bytes() > room.soft_bytes else 0
        while (size := self._database.file_bytes()) > room.soft_bytes:
            if self._database.vacuum(VACUUM_PAGES):
                continue
            self._marked()
            crowded = letter_bytes > room.quota_bytes // DEAD_LETTER_SHARE
            went = self._evict_something(crowded, measurements=size > room.quota_bytes)
            if went is None:
                break
            counter, rows = went
            letter_bytes = self._dead_letter_bytes() if counter == "dead_letters_evicted" else letter_bytes
            gone[counter] = gone.get(counter, 0) + rows
        self._give_back()
        return gone

    def _give_back(self) -> None:
        while self._database.free_pages() > SPARE_PAGES and self._database.vacuum(VACUUM_PAGES):
            pass

    def _evict_something(self, crowded: bool, measurements: bool) -> tuple[str, int] | None:
        """One slice of the least valuable there is; undelivered measurements are the last to go (docs/telemetry.md)."""
        if crowded and (rows := self._drop_oldest_letters()):
            return "dead_letters_evicted", rows
        if rows := self._delete_oldest_delivered():
            return "expired", rows
        for lane, counter in ((Stream.REPUBLISH, "republish_cancelled"), (Stream.OWN, "own_evicted")):
            if rows := self._evict_lane(lane, counter):
                return counter, rows
        if rows := self._drop_oldest_letters():
            return "dead_letters_evicted", rows
        if measurements and (rows := self._evict_unproven() or self._evict_lane(Stream.DATA, "evicted")):
            return "evicted", rows
        return None

    def _marked(self) -> None:
        with suppress(Unavailable):  # a disk that takes no marks needs room all the more
            self._write_marks()

    # --- delivered rows ------------------------------------------------------------------------------------

    def _delete_by_age(self, counter: str, start_ms: int, end_ms: int) -> int:
        return sum(self._delete_delivered(counter, ids) for ids in self._ids_by_age(start_ms, end_ms))

    def _ids_by_age(self, start_ms: int, end_ms: int) -> Iterator[list[int]]:
        """Upwards by time. Rows of one millisecond are one step, however many there are."""
        after_ms = start_ms - 1
        while rows := self._database.rows(
            "SELECT id, ts FROM record WHERE ts > ? AND ts <= ? ORDER BY ts LIMIT ?", (after_ms, end_ms, SLICE)
        ):
            after_ms = rows[-1][1]
            same = self._database.rows("SELECT id FROM record WHERE ts = ?", (after_ms,))
            ids = sorted({row_id for row_id, _ in rows} | {row_id for (row_id,) in same})
            yield from (ids[place : place + SLICE] for place in range(0, len(ids), SLICE))

    def _delete_oldest_delivered(self) -> int:
        """By id; where nothing was found it is not looked again until something was delivered."""
        known = counters(self._database)
        delivered = known.get("delivered", 0) + known.get("stored", 0)
        if delivered != self._delivered_then:
            self._looked_upto, self._delivered_then = 0, delivered
        while rows := self._database.rows(
            "SELECT id FROM record WHERE id > ? ORDER BY id LIMIT ?", (self._looked_upto, SLICE)
        ):
            self._looked_upto = rows[-1][0]
            if deleted := self._delete_delivered("expired", [row_id for (row_id,) in rows]):
                return deleted
        return 0

    def _delete_delivered(self, counter: str, ids: Sequence[int]) -> int:
        """Those of `ids` that are kept and not on their way."""
        keys = ",".join(map(str, ids)) or "NULL"
        found = self._database.rows(
            f"SELECT id FROM record WHERE id IN ({keys}) AND kind = {KEPT} AND NOT {ON_ITS_WAY} AND {unproven.PROVEN}"
        )
        if not found:
            return 0
        with self._database.transaction() as connection:
            sql = f"DELETE FROM record WHERE id = ? AND NOT {ON_ITS_WAY} AND {unproven.PROVEN}"
            deleted = connection.executemany(sql, found).rowcount
            count(connection, **{counter: deleted})
        return deleted

    def _evict_unproven(self) -> int:
        """Most likely the server has these; still, nobody knows, so they go as late as what was never sent."""
        with self._database.transaction() as connection:
            return unproven.evict_unproven(connection, SLICE)

    # --- what waits ----------------------------------------------------------------------------------------

    def _evict_lane(self, lane: Stream, counter: str) -> int:
        """The oldest rows of a lane, undelivered; of the republished ones only the order goes, they were delivered."""
        with self._database.transaction() as connection:
            sql = "SELECT record_id FROM outbox WHERE lane = ? ORDER BY record_id LIMIT ?"
            ids = connection.execute(sql, (lane, SLICE)).fetchall()
            if lane == Stream.REPUBLISH:
                self._looked_upto = 0  # their records may go now
                connection.executemany(f"DELETE FROM outbox WHERE lane = {lane:d} AND record_id = ?", ids)
            else:
                connection.executemany(f"DELETE FROM outbox WHERE {LANES} AND record_id = ?", ids)
                connection.executemany("DELETE FROM record WHERE id = ?", ids)
            count(connection, **{counter: len(ids)})
        return len(ids)

    def _dead_letter_bytes(self) -> int:
        return int(self._database.rows("SELECT coalesce(sum(length(message)), 0) FROM dead_letter")[0][0])

    def _drop_oldest_letters(self) -> int:
        with self._database.transaction() as connection:
            ids = connection.execute("SELECT id FROM dead_letter ORDER BY id LIMIT ?", (LETTER_SLICE,)).fetchall()
            connection.executemany("DELETE FROM dead_letter WHERE id = ?", ids)
            count(connection, dead_letters_evicted=len(ids))
        return len(ids)
