"""From the controller's inbox into the archive: a message is accepted when the transaction that archives it commits.

Only then does its row leave the inbox. If the process dies in between, the row is met again and recognised by its id
and its text; an inbox that was created anew has other rows under the same ids, and loses none.
"""

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Protocol

from teg.domain.concurrency import WorkSignal
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ports import Archive
from teg.domain.telemetry.validation import Record, SetAside

logger = logging.getLogger("gateway.ingest")

BATCH_ROWS = 1000
BATCH_BYTES = 1 << 20
#: Archived rows that may wait for a locked inbox before reading stops: bounds memory, not safety.
MAX_ARCHIVED_ROWS = 100_000
LOCKED_PAUSE_S = 0.5
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
    """Rows with what became of each; `records` and `set_aside` together are `rows`."""

    records: Sequence[Record]
    set_aside: Sequence[SetAside]
    rows: RowsRead


class Inbox(Protocol):
    def read(self, after_id: int | None, max_rows: int, max_bytes: int) -> Batch:
        """Rows after `after_id` (None: from the first), ascending; none while there is no inbox."""
        ...

    def delete(self, rows: RowsRead) -> None:
        """Remove exactly these rows; durable when it returns.

        Raises:
            Replaced: the file is another one, or rows hold something else, than when they were read; those stay.
        """
        ...


class Replaced(Unavailable):
    """The inbox is not what it was when the rows were read: its ids may mean other rows now."""


class Recorder:
    """Moves inbox rows into the archive; `stored` is called after every batch."""

    def __init__(
        self,
        inbox: Inbox,
        archive: Archive,
        stored: Callable[[], None],
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
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
                if self.record_batch():
                    continue
                if self._archived:
                    self.signal.pause(LOCKED_PAUSE_S)
                elif not self.signal.wait(self._idle_timeout_s):
                    break

    def record_batch(self) -> int:
        """One batch: read, archive, delete. Returns the number of rows archived, or 1 when there may be more.

        A locked inbox stops only the deleting: reading and archiving go on behind the rows that are already safe.
        """
        archived = 0
        if not (full := sum(len(rows.ids) for rows in self._archived) >= MAX_ARCHIVED_ROWS):
            batch = self._inbox.read(self._archived[-1].ids[-1] if self._archived else None, BATCH_ROWS, BATCH_BYTES)
            if batch.rows.ids and batch.rows.generation != self._known:
                return self._meet(batch.rows.generation)
            archived = self._store(batch)
        replaced = bool(self._archived) and not self._empty_inbox()
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
            self._archived, self._known = [], None  # it may have committed all the same: its text tells
            raise
        self._archived.append(batch.rows)
        self._stored()
        for record in batch.records:
            self._notice(record.message)
        return len(batch.rows.ids)

    def _empty_inbox(self) -> bool:
        """False: what was archived lay in a file, or under ids, that are others now."""
        self._archive.confirm()
        try:
            while self._archived:
                self._inbox.delete(self._archived[0])
                del self._archived[0]
        except Replaced:
            self._archived, self._known = [], None  # what is in there now is told by its text, not by its id
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
        self._archived, self._known = [], None
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
            archived = rows.only({row_id for row_id, mark in pairs if messages.get(row_id) == mark})
            self._inbox.delete(archived)
            found += len(archived.ids)
            after_id = rows.ids[-1]
        self._known = generation
        if found:
            logger.info("%d inbox rows had been archived before; removed", found)
        return 1
