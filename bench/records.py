"""The records that all measurements use, and an inbox filled with them."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support.running import ControllerInbox


def record(number: int) -> str:
    return (
        f'{{"ts": {1_767_225_600_000 + number}, "values": {{"co2": {400 + number % 100}.5, "temperature": 21.25, '
        f'"humidity": 48.1, "pressure": 1013.2, "n": {number}}}}}'
    )


def fill(path: Path, rows: int) -> None:
    """An inbox that nobody has open, all in its main file."""
    inbox = ControllerInbox(path)
    inbox.insert_many(record(number) for number in range(rows))
    inbox.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
