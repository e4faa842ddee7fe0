"""The controller's database, an ingest mailbox: read by batches, emptied in short transactions, trusted in nothing.

The controller is another process on the same file; it gives up after 5 s of lock. So every delete is one small
transaction (its size follows the measured time), there is no checkpoint that takes the write lock, and the file is
never created, replaced or changed in its schema by us. It is opened by a confined process only (`reader`, `child`).
"""

import logging
import struct
from pathlib import Path

from teg.adapters.inbox import wire
from teg.adapters.inbox.child import MESSAGES
from teg.adapters.inbox.confinement import Layers
from teg.adapters.inbox.reader import HostileFile
from teg.adapters.inbox.wire import BrokenFrame, Op
from teg.domain.telemetry.ingest import Batch, RowsRead

logger = logging.getLogger("gateway.inbox")

#: Lock time aimed at; the promise is 100 ms, and one slow fsync of an SD card must fit on top.
AIM_S = 0.02
MAX_CHUNK = 2000
#: A heartbeat is not worth waiting for a reader that hangs.
HEARTBEAT_PATIENCE_S = 1.0


class Inbox:
    """`telemetry.ingest.Inbox` and `ports.Heartbeat` over `communication_queue.db`; usable from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = HostileFile(path, self._say_layers)
        self._said: Layers | None = None
        self._chunk = 250

    @property
    def trouble(self) -> str:
        """Why the inbox cannot be read, empty when it can."""
        return self._file.trouble

    def read(self, after_id: int | None, max_rows: int, max_bytes: int) -> Batch:
        """Judged rows by id, from the first one or after `after_id`; empty while there is no inbox yet."""
        first_id = wire.MIN_ID if after_id is None else max(after_id + 1, wire.MIN_ID)
        if first_id > wire.MAX_ID:
            return Batch([], [], RowsRead(0, [], []))
        found = self._file.ask(wire.encode_request(Op.READ, MESSAGES, first_id, max_rows, max_bytes))
        if found is None:
            return Batch([], [], RowsRead(0, [], []))
        try:
            return wire.decode_batch(found[1], found[0])
        except BrokenFrame as reason:
            raise self._file.broken(reason) from reason

    def delete(self, rows: RowsRead) -> None:
        """Remove exactly these rows, a chunk a transaction, so that the controller can write in between."""
        position = 0
        while position < len(rows.ids):
            chunk = slice(position, position + self._chunk)
            request = wire.encode_request(Op.DELETE, MESSAGES) + wire.encode_rows(rows.ids[chunk], rows.marks[chunk])
            found = self._file.ask(request, generation=rows.generation)
            position += len(rows.ids[chunk])
            if found is not None:
                self._adapt(self._number("<d", found[1]))

    def has_rows(self, after: RowsRead | None = None) -> bool:
        """Rows after those, or at all; in another file than theirs, any."""
        first_id = wire.MIN_ID if after is None else min(after.ids[-1] + 1, wire.MAX_ID)
        found = self._file.ask(wire.encode_request(Op.HAS_ROWS, MESSAGES, first_id))
        if found is not None and after is not None and found[0] != after.generation:
            return self.has_rows()
        return found is not None and bool(self._number("<?", found[1]))

    def last_heartbeat_ms(self) -> int | None:
        found = self._file.ask(wire.encode_request(Op.HEARTBEAT), patience_s=HEARTBEAT_PATIENCE_S)
        return int(self._number("<q", found[1])) if found is not None and found[1] else None

    def close(self) -> None:
        self._file.close()

    def _number(self, shape: str, answer: bytes) -> float:
        try:
            return struct.unpack(shape, answer)[0]  # type: ignore[no-any-return]
        except struct.error as error:
            raise self._file.broken(BrokenFrame(str(error))) from error

    def _adapt(self, taken_s: float) -> None:
        if taken_s > AIM_S:
            self._chunk = max(1, self._chunk // 2)
        elif taken_s < AIM_S / 4:
            self._chunk = min(MAX_CHUNK, self._chunk * 2)

    def _say_layers(self, layers: Layers) -> None:
        if layers == self._said:
            return
        self._said = layers
        logger.info("the inbox is read by a process confined by: %s", ", ".join(k for k in layers if not layers[k]))
        if absent := [f"{name} ({reason})" for name, reason in layers.items() if reason]:
            logger.warning("not confined by: %s", ", ".join(absent))
