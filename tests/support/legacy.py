"""The reference gateway's files, with its own schema."""

import sqlite3
from pathlib import Path

START_MS = 1_767_225_600_000


class Reference:
    """`archived`, `queued` and `logged` write a row each, as the reference did."""

    def __init__(self, directory: Path, inbox_path: Path | None = None) -> None:
        self.directory = directory
        self.inbox_path = inbox_path or directory / "communication_queue.db"
        archive, logs = directory / "gateway_archive.db", directory / "gateway_logs_buffer.db"
        self.archive = self._open(archive, "controller_archive", "timestamp_ms INTEGER, message TEXT")
        self.inbox = self._open(self.inbox_path, "pending_mqtt_messages", "type text, message text")
        self.logs = self._open(logs, "log_buffer", "log_level text, message text, timestamp_ms INTEGER")

    def _open(self, path: Path, table: str, columns: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY AUTOINCREMENT, {columns})")
        return connection

    def archived(self, number: int) -> None:
        self.archive.execute(
            "INSERT INTO controller_archive (timestamp_ms, message) VALUES (?, ?)",
            (START_MS + number, f'{{"n": {number}}}'),
        )

    def queued(self, number: int, row_type: str = "measurement") -> None:
        self.inbox.execute(
            "INSERT INTO pending_mqtt_messages (type, message) VALUES (?, ?)",
            (row_type, f'{{"ts": {START_MS + number}, "values": {{"n": {number}}}}}'),
        )

    def logged(self, text: str) -> None:
        self.logs.execute(
            "INSERT INTO log_buffer (log_level, message, timestamp_ms) VALUES ('INFO', ?, ?)", (text, START_MS)
        )

    def close(self) -> None:
        for connection in (self.archive, self.inbox, self.logs):
            connection.close()
