"""From the controller's inbox into the archive: a message is accepted when the transaction that archives it commits.

Only then does its row leave the inbox. If the process dies in between, the row is met again and recognised by its id
and its text; an inbox that was created anew has other rows under the same ids, and loses none.
"""

import logging
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from teg.domain.concurrency import WorkSignal
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ports import Archive
from teg.domain.telemetry.validation import Record, SetAside

logger = logging.getLogger("gateway.ingest")

BATCH_ROWS = 2000
BATCH_BYTES = 1 << 20
#: Archived rows that may wait for a locked inbox before reading stops: bounds memory, not safety.
MAX_ARCHIVED_ROWS = 100_000
LOCKED_PAUSE_S = 0.5
#: Archived rows leave the inbox in groups, because each removal costs the card what archiving costs: when there are so
#: many, when the first of them waited so long, or when no more came for a while.
REMOVE_ROWS = 1000
REMOVE_AFTER_S, REMOVE_QUIET_S = 30.0, 1.5
#: How long a finished drainer waits to be notified before it gives its worker back.
IDLE_TIMEOUT_S = 5.0


#: This many vain tries to empty the inbox are a busy controller; more are trouble, and said.
TRIES_UNSAID = 20


@dataclass(frozen=True, slots=True)
class RowsRead:
    """Rows as they were read: out of which file (its generation), under which ids, holding what (`fingerprint`)."""

    generation: int
    ids: Sequence[int]
    marks: Sequence[bytes]

    def only(self, ids: Container[int]) -> "RowsRead":
        kept = [(row_id, mark) for row_id, mark in zip(self.ids, self.marks, strict=True) if row_id in ids]
        return RowsRead(self.generation, [row_id for row_id, _ in kept], [mark for _, mark in kept])


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows with what became of each; `records` and `set_aside` together are `rows`.

    `odd`: messages of those records whose numbers nobody has seen to be ordinary.
    """

    records: Sequence[Record]
    set_aside: Sequence[SetAside]
    rows: RowsRead
    odd: Sequence[str] = ()


def joined(batches: Sequence[RowsRead]) -> RowsRead:
    """Of one file, in order."""
    if len(batches) == 1:
        return batches[0]
    ids = [row_id for rows in batches for row_id in rows.ids]
    return RowsRead(batches[0].generation, ids, [mark for rows in batches for mark in rows.marks])


def _together(batches: Sequence[RowsRead], most: int) -> int:
    """How many of the first batches are at most so many rows; at least one."""
    sizes = accumulate(len(rows.ids) for rows in batches)
    return max(1, sum(size <= most for size in sizes))


class Inbox(Protocol):
    def read(self, after_id: int | None, max_rows: int, max_bytes: int) -> Batch:
        """Rows after `after_id` (None: from the first), ascending; none while there is no inbox."""
        ...

    def has_rows(self, after: RowsRead | None) -> bool:
        """Is there any row after those (None: at all)? In another file than theirs, any row."""
        ...

    def delete(self, rows: RowsRead) -> None:
        """Remove exactly these rows; durable when it returns.

        Raises:
            Replaced: the file is another one, or rows hold something else, than when they were read; those stay.
        """
        ...


class Replaced(Unavailable):
    """The inbox is not what it was when the rows were read: its ids may mean other rows now."""


class CommitPace:
    """How long rows wait in the inbox, which is durable, for others to share their commit.

    A slow stream waits for nothing. When messages come fast, three or so share one: a third of the fsyncs, and a delay
    that nobody sees beside the message's interval.
    """

    #: From this rate on rows are gathered; that many share a commit; none waits longer than that.
    FAST_PER_S, SHARED_ROWS, LONGEST_S = 3.5, 3.4, 0.34
    #: The rate is that of about the last so many seconds.
    MEMORY_S = 2.0

    def __init__(self, least_s: Callable[[], float] = lambda: 0.0) -> None:
        """`least_s`: what a budget for the card asks for (`TEG_FLASH_MB_PER_DAY`)."""
        self._least_s = least_s
        self._per_s = 0.0
        self._then_s: float | None = None

    def pause_s(self, rows: int, now_s: float) -> float:
        """After a commit of `rows`: until the next one. A full batch is a backlog, which never waits."""
        if self._then_s is not None:
            passed_s = max(0.001, now_s - self._then_s)
            weight = min(1.0, passed_s / self.MEMORY_S)
            self._per_s += weight * (rows / passed_s - self._per_s)
        self._then_s = now_s
        if rows >= BATCH_ROWS:
            return 0.0
        gathered_s = min(self.LONGEST_S, self.SHARED_ROWS / self._per_s) if self._per_s >= self.FAST_PER_S else 0.0
        return max(gathered_s, self._least_s())


class Recorder:
    """Moves inbox rows into the archive; `stored` is called after every batch."""

    def __init__(
        self,
        inbox: Inbox,
        archive: Archive,
        stored: Callable[[], None],
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        notice: Callable[[str], None] = lambda _: None,
        pace: CommitPace | None = None,
        remove_after_s: float = 0.0,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pace` None: every row at once. `remove_after_s`: how long archived rows may stay in the inbox."""
        self._pace = pace
        self._remove_after_s = remove_after_s
        self._now_s = now_s
        self._remove_s = self._quiet_s = 0.0
        self._last: RowsRead | None = None  #: read by the feed's thread, too
        self.signal = WorkSignal()
        self._inbox = inbox
        self._archive = archive
        self._stored = stored
        self._notice = notice
        self._idle_timeout_s = idle_timeout_s
        self._archived: list[RowsRead] = []  #: archived and still in the inbox, ascending, all of one file
        self._known: int | None = None  #: the file whose rows were compared with what is archived
        self._tries = 0  #: in vain, to empty the inbox

    def run(self, stopping: Callable[[], bool]) -> None:
        """Archive everything there is, then wait a little for more; returns at once when another thread is at it.

        Raises:
            Unavailable: the inbox cannot be read or the archive not written now.
        """
        with self.signal.draining() as mine:
            while mine and not stopping():
                if rows := self.record_batch():
                    self._gather(rows, stopping)
                elif self._archived:
                    self.signal.pause(self._pause_s())
                elif not self.signal.wait(self._idle_timeout_s):
                    return
            if mine and self._archived:
                self._empty_inbox()

    def has_rows(self) -> bool:
        """Is there anything in the inbox that is not archived yet? For the one who watches it, from any thread.

        Raises:
            Unavailable: the inbox cannot be read now.
        """
        return self._inbox.has_rows(self._last)

    def _gather(self, rows: int, stopping: Callable[[], bool]) -> None:
        pause_s = 0.0 if self._pace is None else self._pace.pause_s(rows, self._now_s())
        end_s = self._now_s() + pause_s
        while (left_s := end_s - self._now_s()) > 0 and not stopping():
            time.sleep(min(left_s, self._pace.LONGEST_S if self._pace else left_s))

    def _pause_s(self) -> float:
        """Until archived rows should leave the inbox; while it is locked, until the next try."""
        return max(LOCKED_PAUSE_S if self._tries else 0.0, self._removal_s() - self._now_s(), 0.001)

    def _removal_s(self) -> float:
        return min(self._remove_s, self._quiet_s)

    def record_batch(self) -> int:
        """One batch: read, archive, delete. Returns the number of rows archived, or 1 when there may be more.

        A locked inbox stops only the deleting: reading and archiving go on behind the rows that are already safe.
        """
        archived, waiting = 0, sum(len(rows.ids) for rows in self._archived)
        if not (full := waiting >= MAX_ARCHIVED_ROWS):
            batch = self._inbox.read(self._archived[-1].ids[-1] if self._archived else None, BATCH_ROWS, BATCH_BYTES)
            if batch.rows.generation != self._known and (batch.rows.ids or (self._archived and batch.rows.generation)):
                return self._meet(batch.rows.generation)
            archived = self._store(batch)
        due = waiting + archived >= REMOVE_ROWS or self._now_s() >= self._removal_s()
        replaced = bool(self._archived) and due and not self._empty_inbox()
        return archived or int(replaced or (full and not self._archived))

    def _store(self, batch: Batch) -> int:
        if not batch.rows.ids:
            return 0
        for dead in batch.set_aside[:5]:
            logger.warning("inbox row %d set aside: %s", dead.source_row, dead.reason[:300])
        left_upto = self._archived[0].ids[0] - 1 if self._archived else None
        try:
            self._archive.store(batch.records, batch.set_aside, left_upto=left_upto)
        except Unavailable:
            self._archived, self._known, self._last = (
                [],
                None,
                None,
            )  # it may have committed: its text tells
            raise
        now_s = self._now_s()
        if not self._archived:
            self._remove_s = now_s + self._remove_after_s
        self._quiet_s = now_s + min(REMOVE_QUIET_S, self._remove_after_s)
        self._archived.append(batch.rows)
        self._last = batch.rows
        self._stored()
        for message in batch.odd:
            self._notice(message)
        return len(batch.rows.ids)

    def _empty_inbox(self) -> bool:
        """False: what was archived lay in a file, or under ids, that are others now."""
        self._archive.confirm()
        try:
            while self._archived:
                together = _together(self._archived, REMOVE_ROWS)
                self._inbox.delete(joined(self._archived[:together]))
                del self._archived[:together]
            self._last = None
        except Replaced:
            self._archived, self._known, self._last = [], None, None  # what is in there now is told by its text
            return False
        except Unavailable as reason:
            self._tries += 1
            if self._tries == TRIES_UNSAID:
                logger.warning("archived rows cannot be removed from the inbox: %s", reason)
        else:
            if self._tries >= TRIES_UNSAID:
                logger.warning("archived rows are removed from the inbox again")
            self._tries = 0
        return True

    def _meet(self, generation: int) -> int:
        """A file not met before in this life: its rows may be archived already. Same id and same text: the same row."""
        self._archived, self._known, self._last = [], None, None
        messages = self._archive.unfinished().messages
        after_id = min(messages) - 1 if messages else 0
        found = 0
        while messages and after_id < max(messages):
            rows = self._inbox.read(after_id, BATCH_ROWS, BATCH_BYTES).rows
            if rows.ids and rows.generation != generation:
                return 1
            if not rows.ids:
                break
            pairs = zip(rows.ids, rows.marks, strict=True)
            archived = rows.only({row_id for row_id, mark in pairs if mark in messages.get(row_id, ())})
            self._archive.confirm()
            self._inbox.delete(archived)
            found += len(archived.ids)
            after_id = rows.ids[-1]
        self._known = generation
        if found:
            logger.info("%d inbox rows had been archived before; removed", found)
        return 1
