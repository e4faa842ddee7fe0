"""The controller's client, its clock and a look into the file that it writes."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

NOW = 1_767_225_600_000


class FakeClock:
    def __init__(self, now_ms: int = NOW) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, json.loads(text)) for kind, text in query(path, "SELECT type, message FROM messages ORDER BY id")]


def stamps(path: Path) -> list[int]:
    return [message["ts"] for _, message in rows(path)]
