"""The reference gateway's databases as it left them: read, and emptied only where rows were waiting."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from teg.domain.errors import Unavailable


class LegacyDatabases:
    """`telemetry.legacy_import.OldData`."""

    def __init__(self, data_path: Path, inbox_path: Path) -> None:
        self._archive_path = data_path / "gateway_archive.db"
        self._logs_path = data_path / "gateway_logs_buffer.db"
        self._inbox_path = inbox_path

    def archive(self, after_id: int, limit: int) -> list[tuple[int, Any, Any]]:
        sql = "SELECT id, timestamp_ms, message FROM controller_archive WHERE id > ? ORDER BY id LIMIT ?"
        return _rows(self._archive_path, "controller_archive", sql, (after_id, limit))

    def pending(self, after_id: int, limit: int) -> list[tuple[int, Any, Any]]:
        sql = "SELECT id, type, message FROM pending_mqtt_messages WHERE id > ? ORDER BY id LIMIT ?"
        return _rows(self._inbox_path, "pending_mqtt_messages", sql, (after_id, limit), text_factory=bytearray)

    def delete_pending(self, ids: Sequence[int]) -> None:
        with closing(_connect(self._inbox_path)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("DELETE FROM pending_mqtt_messages WHERE id = ?", [(row_id,) for row_id in ids])
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise Unavailable(f"{self._inbox_path}: {error}") from error

    def logs(self, after_id: int, limit: int) -> list[tuple[int, Any, Any, Any]]:
        sql = "SELECT id, log_level, message, timestamp_ms FROM log_buffer WHERE id > ? ORDER BY id LIMIT ?"
        return _rows(self._logs_path, "log_buffer", sql, (after_id, limit))


def _connect(path: Path) -> sqlite3.Connection:
    """Read-write without creating: a WAL file left behind has to be recovered, which a read-only open cannot."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=5.0)


def _rows(path: Path, table: str, sql: str, parameters: Sequence[int], text_factory: Any = str) -> list[Any]:
    if not path.exists():
        return []
    try:
        with closing(_connect(path)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            kinds = connection.execute("SELECT type FROM sqlite_master WHERE tbl_name = ?", (table,)).fetchall()
            if not kinds or any(kind not in ("table", "index") for (kind,) in kinds):
                return []
            connection.text_factory = text_factory
            return connection.execute(sql, parameters).fetchall()
    except sqlite3.Error as error:
        raise Unavailable(f"{path}: {error}") from error
