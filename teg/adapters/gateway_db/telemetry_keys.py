"""Which telemetry keys the controller sent in a span of time: read from the archive, for the trial of an update."""

from collections.abc import Collection
from contextlib import suppress

import orjson

from teg.adapters.gateway_db.database import Database

#: The newest rows of a span that are looked at; a key that is not among them is not sent regularly.
MAX_ROWS = 20_000


class ArchivedKeys:
    """`ota.rollout.TelemetryKeys`; the gateway's own records (no `source_row`) do not count."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keys_between(self, start_ms: int, end_ms: int) -> Collection[str]:
        keys: set[str] = set()
        sql = (
            "SELECT CAST(coalesce(payload, message) AS BLOB) FROM record"
            " WHERE ts >= ? AND ts < ? AND source_row IS NOT NULL ORDER BY ts DESC LIMIT ?"
        )
        with self._database.reading(sql, (start_ms, end_ms, MAX_ROWS)) as rows:
            for (message,) in rows:
                keys |= _keys(message)
        return keys


def _keys(message: bytes) -> set[str]:
    with suppress(orjson.JSONDecodeError):
        record = orjson.loads(message)
        if isinstance(record, dict) and isinstance(record.get("values"), dict):
            return set(record["values"])
    return set()
