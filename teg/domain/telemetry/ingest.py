"""From the controller's inbox into the archive: a message is accepted when the transaction that archives it commits.

Only then does its row leave the inbox. If the process dies in between, the row is met again and recognised by its id
and its text; an inbox that was created anew has other rows under the same ids, and loses none.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from teg.domain.concurrency import WorkSignal
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ports import Archive, fingerprint
from teg.domain.telemetry.validation import Record, SetAside, as_bytes, validate

logger = logging.getLogger("gateway.recording")

BATCH_ROWS = 1000
BATCH_BYTES = 1 << 20
#: Archived rows that may wait for a locked inbox before reading stops: bounds memory, not safety.
MAX_ARCHIVED_ROWS = 100_000
LOCKED_PAUSE_S = 0.5
#: How long a finished drainer waits for the next ring before it gives its worker back.
IDLE_TIMEOUT_S = 5.0


class Inbox(Protocol):
    def read(self, after_id: int, max_rows: int, max_bytes: int) -> list[tuple[int, Any, Any]]:
        """Rows (id, type, message) with id > `after_id`, ascending."""
        ...

    def delete(self, ids: Sequence[int]) -> None:
        """Remove exactly these rows (ascending ids) of the file that the last `read` saw; durable when it returns.

        Raises:
            Replaced: it may be another file now; nothing (more) was removed.
        """
        ...


class Replaced(Unavailable):
    """The inbox was opened anew since it was read: its ids may mean other rows now."""


class Recorder:
    """Moves inbox rows into the archive; `stored` is called after every batch."""

    def __init__(
        self, inbox: Inbox, archive: Archive, stored: Callable[[], None], idle_timeout_s: float = IDLE_TIMEOUT_S
    ) -> None:
        self.signal = WorkSignal()
        self._inbox = inbox
        self._archive = archive
        self._stored = stored
        self._idle_timeout_s = idle_timeout_s
        self._archived: list[int] = []  #: ids that are archived and still in the inbox
        self._recovered = False

    def run(self, stopping: Callable[[], bool]) -> None:
        """Archive everything there is, then linger for more; returns at once when another thread is at it.

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
        if not self._recovered:
            self._recover()
        full = len(self._archived) >= MAX_ARCHIVED_ROWS
        rows = [] if full else self._inbox.read(self._archived[-1] if self._archived else 0, BATCH_ROWS, BATCH_BYTES)
        if rows:
            self._store(rows)
            self._stored()
        if self._archived:
            self._empty_inbox()
        return len(rows) or int(full and not self._archived)

    def _store(self, rows: list[tuple[int, Any, Any]]) -> None:
        verdicts = [validate(*row) for row in rows]
        records = [verdict for verdict in verdicts if type(verdict) is Record]
        aside = [verdict for verdict in verdicts if type(verdict) is SetAside]
        for dead in aside[:5]:
            logger.warning("inbox row %d set aside: %s", dead.source_row, dead.reason[:300])
        self._archive.store(records, aside, left_upto=self._archived[0] - 1 if self._archived else None)
        self._archived += [row[0] for row in rows]

    def _empty_inbox(self) -> None:
        try:
            self._inbox.delete(self._archived)
        except Replaced:
            self._archived, self._recovered = [], False  # what is in there now is told by its text, not by its id
        except Unavailable as reason:
            logger.debug("the inbox cannot be emptied now: %s", reason)
        else:
            self._archived = []

    def _recover(self) -> None:
        """Rows that were archived but perhaps not deleted: same id and same text means the same row."""
        messages = self._archive.unfinished().messages
        after_id = min(messages) - 1 if messages else 0
        found = 0
        while messages and after_id < max(messages):
            rows = self._inbox.read(after_id, BATCH_ROWS, BATCH_BYTES)
            if not rows:
                break
            archived = [row_id for row_id, _, text in rows if messages.get(row_id) == fingerprint(as_bytes(text))]
            if archived:
                self._inbox.delete(archived)
            found += len(archived)
            after_id = rows[-1][0]
        if found:
            logger.info("%d inbox rows had been archived before; removed", found)
        self._recovered = True
