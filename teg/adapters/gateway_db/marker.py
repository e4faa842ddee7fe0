"""A few numbers about the archive, kept beside it: a database that lost rows in silence does not know that it did.

Written at most once a minute and at the end, so it may be a little behind, never ahead.
"""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson

from teg.adapters.gateway_db.connections import sqlite_errors
from teg.adapters.gateway_db.names import sync_directory

LAST_IDS = ("record", "dead_letter")
COUNTERS = ("accepted", "delivered", "evicted", "lost")
#: Not in the markers of earlier versions.
LATER_COUNTERS = ("held",)


class Marker:
    """`gateway.db.marker`: last ids and counters."""

    def __init__(self, database_path: Path) -> None:
        self._path = database_path.with_name(database_path.name + ".marker")
        self._written: Mapping[str, int] = {}

    def read(self) -> dict[str, int]:
        """Empty when there is none, or when it cannot be read: it is a witness, not a condition."""
        with suppress(OSError, orjson.JSONDecodeError):
            found = orjson.loads(self._content())
            if isinstance(found, dict) and all(type(found.get(name)) is int for name in (*LAST_IDS, *COUNTERS)):
                return found
        return {}

    def _content(self) -> bytes:
        """Of an ordinary file: anything else could keep us waiting."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""

    def write(self, numbers: Mapping[str, int]) -> None:
        """Raises Unavailable."""
        if numbers == self._written:
            return
        new = self._path.with_name(self._path.name + ".new")
        with sqlite_errors(self._path):
            with new.open("wb") as file:
                file.write(orjson.dumps(dict(numbers)))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            sync_directory(self._path.parent)
        self._written = dict(numbers)
