"""Counters that are exact after any crash: changed inside the transaction that they count."""

from collections.abc import Mapping
from sqlite3 import Connection

from teg.adapters.gateway_db.database import Database


def count(connection: Connection, **changes: int) -> None:
    """Add to the persistent counters inside the caller's transaction, so the account is exact after any crash."""
    connection.executemany(
        "INSERT INTO counter (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        [(name, change) for name, change in changes.items() if change],
    )


def counters(database: Database) -> Mapping[str, int]:
    return dict(database.rows("SELECT name, value FROM counter"))
