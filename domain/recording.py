"""From the controller's inbox into the archive: a message is accepted when the transaction that archives it commits.

Only then does its row leave the inbox. If the process dies in between, the row is met again and recognised by its id
and its text; an inbox that was created anew has other rows under the same ids, and loses none.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from domain.archive import Archive
from domain.bell import Bell
from domain.errors import Unavailable
from domain.records import Record, SetAside, judge

logger = logging.getLogger("gateway.recording")

BATCH_ROWS = 1000
BATCH_BYTES = 1 << 20
#: Archived rows that may wait for a locked inbox before reading stops: bounds memory, not safety.
MAX_ARCHIVED_ROWS = 100_000
LOCKED_PAUSE_S = 0.5
#: How long a finished drainer waits for the next ring before it gives its worker back.
LINGER_S = 5.0


class Inbox(Protocol):
    def read(self, after_id: int, max_rows: int, max_bytes: int) -> list[tuple[int, Any, Any]]:
        """Rows (id, type, message) with id > `after_id`, ascending."""
        ...

    def delete(self, ids: Sequence[int]) -> None:
        """Remove exactly these rows (ascending ids); durable when it returns."""
        ...


class Recorder:
    """Moves inbox rows into the archive; `stored` is called after every batch."""

    def __init__(self, inbox: Inbox, archive: Archive, stored: Callable[[], None], linger_s: float = LINGER_S) -> None:
        self.bell = Bell()
        self._inbox = inbox
        self._archive = archive
        self._stored = stored
        self._linger_s = linger_s
        self._archived: list[int] = []  #: ids that are archived and still in the inbox
        self._recovered = False

    def run(self, stopping: Callable[[], bool]) -> None:
        """Archive everything there is, then linger for more; returns at once when another thread is at it.

        Raises:
            Unavailable: the inbox cannot be read or the archive not written now.
        """
        with self.bell.answering() as mine:
            while mine and not stopping():
                if self.record_batch():
                    continue
                if self._archived:
                    self.bell.pause(LOCKED_PAUSE_S)
                elif not self.bell.wait(self._linger_s):
                    break

    def record_batch(self) -> int:
        """One batch: read, archive, delete. Returns the number of rows archived.

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
        return len(rows)

    def _store(self, rows: list[tuple[int, Any, Any]]) -> None:
        verdicts = [judge(*row) for row in rows]
        records = [verdict for verdict in verdicts if type(verdict) is Record]
        aside = [verdict for verdict in verdicts if type(verdict) is SetAside]
        for dead in aside[:5]:
            logger.warning("inbox row %d set aside: %s", dead.source_row, dead.reason[:300])
        self._archive.store(records, aside, left_upto=self._archived[0] - 1 if self._archived else None)
        self._archived += [row[0] for row in rows]

    def _empty_inbox(self) -> None:
        try:
            self._inbox.delete(self._archived)
        except Unavailable as reason:
            logger.debug("the inbox cannot be emptied now: %s", reason)
        else:
            self._archived = []

    def _recover(self) -> None:
        """Rows of the last life that were archived but not deleted: same id and same text means the same row."""
        messages = self._archive.unfinished().messages
        if messages:
            rows = self._inbox.read(min(messages) - 1, len(messages) + BATCH_ROWS, 64 << 20)
            self._archived = [row_id for row_id, _, text in rows if _same(messages.get(row_id), text)]
            if self._archived:
                logger.info("%d inbox rows were archived before the last stop; removing them", len(self._archived))
                self._inbox.delete(self._archived)
                self._archived = []
        self._recovered = True


def _same(archived: bytes | None, message: Any) -> bool:
    if archived is None:
        return False
    return archived == (bytes(message) if isinstance(message, (bytes, bytearray)) else str(message or "").encode())
