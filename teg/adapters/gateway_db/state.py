"""Small persisted facts of `gateway.db`: one JSON value a key."""

from collections.abc import Sequence
from typing import Any

import orjson

from teg.adapters.gateway_db.database import Database

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS client_attribute ("
    "key TEXT PRIMARY KEY, value TEXT NOT NULL, change INTEGER NOT NULL, published INTEGER NOT NULL DEFAULT 0"
    ") WITHOUT ROWID",
)


class StateTable:
    """`ports.State`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> Any:
        found = self._database.rows("SELECT value FROM state WHERE key = ?", (key,))
        return orjson.loads(found[0][0]) if found else None

    def put(self, key: str, value: Any) -> None:
        text = orjson.dumps(value).decode()
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO state (key, value) VALUES (?, ?)", (key, text))

    def delete(self, key: str) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM state WHERE key = ?", (key,))

    def keys(self, prefix: str) -> list[str]:
        found = self._database.rows(
            "SELECT key FROM state WHERE key >= ? AND key < ? ORDER BY key", (prefix, prefix + "\U0010ffff")
        )
        return [key for (key,) in found]


class ClientAttributeTable:
    """`telemetry.reporting.PendingAttributes`: the last value of each client attribute, and if the server has it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, values: dict[str, bytes]) -> None:
        """`values` are encoded JSON. `change` grows with each set, so an acknowledgement marks only what was sent."""
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO client_attribute (key, value, change) VALUES (?, ?, 1) ON CONFLICT (key) DO UPDATE "
                "SET value = excluded.value, change = change + 1, published = 0",
                [(key, value.decode()) for key, value in values.items()],
            )

    def pending(self) -> list[tuple[str, bytes, int]]:
        """(key, encoded value, change) of everything the server has not acknowledged."""
        return [
            (key, value.encode(), change)
            for key, value, change in self._database.rows(
                "SELECT key, value, change FROM client_attribute WHERE published = 0 ORDER BY key"
            )
        ]

    def told(self) -> list[tuple[str, bytes]]:
        """(key, encoded value) of everything that the server has acknowledged."""
        found = self._database.rows("SELECT key, value FROM client_attribute WHERE published = 1 ORDER BY key")
        return [(key, value.encode()) for key, value in found]

    def beginning_with(self, prefix: str) -> list[tuple[str, bytes]]:
        """(key, encoded value), whether the server has it or not."""
        sql = "SELECT key, value FROM client_attribute WHERE key >= ? AND key < ? ORDER BY key"
        return [(key, value.encode()) for key, value in self._database.rows(sql, (prefix, prefix + "\U0010ffff"))]

    def tell_again(self, keys: Sequence[str] | None = None) -> None:
        """The server has lost what it was told: these, or every attribute, wait to be sent again."""
        with self._database.transaction() as connection:
            if keys is None:
                connection.execute("UPDATE client_attribute SET published = 0")
            else:
                one = "UPDATE client_attribute SET published = 0 WHERE key = ?"
                connection.executemany(one, [(key,) for key in keys])

    def mark(self, sent: list[tuple[str, int]]) -> None:
        with self._database.transaction(durable=False) as connection:
            connection.executemany("UPDATE client_attribute SET published = 1 WHERE key = ? AND change = ?", sent)
