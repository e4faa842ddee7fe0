"""The next batch of a backlog, judged while the gateway archives the one before."""

import sqlite3
from collections.abc import Callable

from teg.adapters.inbox import wire
from teg.adapters.inbox.hostile_file import Unsafe
from teg.adapters.inbox.queue_file import TABLES, Absent, QueueFile, Replaced
from teg.adapters.inbox.wire import Answer, Op

TABLE_NAMES = tuple(TABLES)


class ReadAhead:
    """Holds at most one answer. It may be a little older than its request: what changed since is not deleted by it."""

    def __init__(self, file: QueueFile, answer: Callable[[QueueFile, bytes], bytes]) -> None:
        self._file = file
        self._answer = answer
        self._next: bytes | None = None  #: the request that is expected
        self._ready: bytes | None = None

    def answer(self, request: bytes) -> bytes:
        op, table, first_id, max_rows, max_bytes, _ = wire.decode_request(request)
        if op != Op.READ:
            return self._answer(self._file, request)
        fits = self._ready is not None and self._fits(table, first_id, max_rows, max_bytes)
        ready = self._ready if fits else None
        self._next = self._ready = None
        reply = ready or self._answer(self._file, request)
        if reply[0] == Answer.DONE:
            count, last_id = wire.batch_end(reply[1:])
            if (count >= max_rows or len(reply) > max_bytes) and last_id < wire.MAX_ID:
                self._next = wire.encode_request(Op.READ, table, last_id + 1, max_rows, max_bytes)
        return reply

    @property
    def wanted(self) -> bool:
        return self._next is not None and self._ready is None

    def prepare(self) -> None:
        """What goes wrong here is met again, and told, when it is asked for."""
        assert self._next is not None
        reply = self._answer(self._file, self._next)
        self._ready = reply if reply[0] == Answer.DONE else None
        if self._ready is None:
            self._next = None

    def _fits(self, table: int, first_id: int, max_rows: int, max_bytes: int) -> bool:
        """The same rows would be read: the file is the same, and nothing has come to lie before them."""
        assert self._next is not None
        _, table_ready, first_ready, rows_ready, bytes_ready, _ = wire.decode_request(self._next)
        if (table, max_rows, max_bytes) != (table_ready, rows_ready, bytes_ready) or first_id > first_ready:
            return False
        try:
            return not self._file.has_rows_between(TABLE_NAMES[table], first_id, first_ready)
        except (Absent, Replaced, Unsafe, sqlite3.Error, OSError):
            return False
