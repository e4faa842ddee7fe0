"""A large database is looked through in the background: every page that holds rows is read, in short pieces.

SQLite's own check of a gigabyte would hold one snapshot for minutes, and the write-ahead log would grow meanwhile.
"""

from collections.abc import Callable

from teg.adapters.gateway_db.database import QUICK_CHECK_BYTES, Database

SLICE = 2000
#: (table, key, what has to be read whole). `sum(length())` of a text reads all of it.
_LARGE = (
    ("record", "id", "length(message) + length(coalesce(payload, ''))"),
    ("record", "ts", "1"),  # the index
    ("dead_letter", "id", "length(message)"),
)


class LookThrough:
    """Once in the life of a process, for a file that is too large for a look at its opening."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._done = False

    @property
    def due(self) -> bool:
        """A file that is not at its name just now is none to look through: another one takes its place soon."""
        if self._done or not self._database.opened:
            return False
        try:
            return self._database.path.stat().st_size > QUICK_CHECK_BYTES
        except OSError:
            return False

    def run(self, stopping: Callable[[], bool]) -> None:
        """
        Raises:
            Unavailable: a page is damaged, and the file was replaced; or it cannot be read now.
        """
        for table, key, content in _LARGE:
            if not self._read(table, key, content, stopping):
                return
        large = {table for table, _, _ in _LARGE}
        for (table,) in self._database.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"):
            if table not in large:
                self._database.check(table)
        self._done = True

    def _read(self, table: str, key: str, content: str, stopping: Callable[[], bool]) -> bool:
        after = -1
        sql = (
            f"SELECT max(k), sum(c) FROM (SELECT {key} AS k, {content} AS c FROM {table} WHERE {key} > ?"
            f" ORDER BY {key} LIMIT {SLICE})"
        )
        while (last := self._database.rows(sql, (after,))[0][0]) is not None:
            after = last
            if stopping():
                return False
        return True
