"""The reference gateway's databases as it left them: read, and emptied only where rows were waiting.

The controller could write them all, so they are opened by a confined process as the inbox is.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from teg.adapters.inbox import wire
from teg.adapters.inbox.read_ahead import TABLE_NAMES
from teg.adapters.inbox.reader import HostileFile
from teg.adapters.inbox.staging import stage, unstage
from teg.adapters.inbox.wire import BrokenFrame, Op
from teg.domain.errors import Unavailable

logger = logging.getLogger("gateway.legacy_import")

BATCH_BYTES = 4 << 20


class LegacyDatabases:
    """`telemetry.legacy_import.OldData`."""

    def __init__(self, data_path: Path, inbox_path: Path) -> None:
        self._archive = LegacyTable(data_path / "gateway_archive.db", "controller_archive", inbox_path.parent)
        self._logs = LegacyTable(data_path / "gateway_logs_buffer.db", "log_buffer", inbox_path.parent)
        self._pending = LegacyTable(inbox_path, "pending_mqtt_messages", inbox_path.parent)

    def archive(self, after_id: int, limit: int) -> list[tuple[int, Any, Any]]:
        return [_as_text(row) for row in self._archive.rows(after_id, limit)]

    def pending(self, after_id: int, limit: int) -> list[tuple[int, Any, Any]]:
        return self._pending.rows(after_id, limit)

    def delete_pending(self, ids: Sequence[int]) -> None:
        """Of the rows that `pending` returned last: what is deleted is what was read."""
        self._pending.delete(ids)

    def logs(self, after_id: int, limit: int) -> list[tuple[int, Any, Any, Any]]:
        return [_as_text(row) for row in self._logs.rows(after_id, limit)]

    def close(self) -> None:
        for table in (self._archive, self._logs, self._pending):
            table.close()


class LegacyTable:
    """One table of one file; its reader is there only while rows are."""

    def __init__(self, path: Path, table: str, shared: Path) -> None:
        self._path = path
        self._table = TABLE_NAMES.index(table)
        self._place = None if path.parent == shared else path.parent / f".{path.name}.reading"
        self._file: HostileFile | None = None
        self._marks: dict[int, bytes] = {}
        self._generation = 0
        self._said = ""

    def rows(self, after_id: int, limit: int) -> list[Any]:
        request = wire.encode_request(Op.RAW, self._table, after_id + 1, limit, BATCH_BYTES)
        try:
            file = self._file or self._open()
            found = file.ask(request) if file is not None else None
            rows, marks = wire.decode_raw(found[1]) if found is not None else ([], [])
        except (OSError, BrokenFrame) as error:
            self.close()
            raise self._told(Unavailable(f"{self._path}: {error}")) from error
        except Unavailable as reason:
            raise self._told(reason) from reason
        self._generation = found[0] if found is not None else 0
        self._marks = {row[0]: mark for row, mark in zip(rows, marks, strict=True)}
        if not rows:
            self.close()
        return rows

    def delete(self, ids: Sequence[int]) -> None:
        assert self._file is not None, "rows are read before they are deleted"
        for first in range(0, len(ids), 250):
            chunk = ids[first : first + 250]
            rows = wire.encode_rows(chunk, [self._marks[row_id] for row_id in chunk])
            self._file.ask(wire.encode_request(Op.DELETE, self._table) + rows, generation=self._generation)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._place is not None:
            unstage(self._place)

    def _open(self) -> HostileFile | None:
        path = self._path if self._place is None else self._path.exists() and stage(self._path, self._place)
        self._file = HostileFile(path, names=1 if self._place is None else 2) if path else None
        return self._file

    def _told(self, reason: Unavailable) -> Unavailable:
        """Said once: the import is tried again and again, and must not stand still in silence."""
        if str(reason) != self._said:
            self._said = str(reason)
            logger.warning("what the reference gateway left cannot be taken over now: %s", reason)
        return reason


def _as_text(row: Sequence[Any]) -> Any:
    return tuple(value.decode(errors="replace") if isinstance(value, bytearray) else value for value in row)
