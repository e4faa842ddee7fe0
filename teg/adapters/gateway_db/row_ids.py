"""Row ids never come back, not even in a fresh file: an acknowledgement for an old row may still be on the way."""

from sqlite3 import Connection

#: Ids of a fresh file begin so far beyond the last one known; more can hardly have been given out since it was noted.
GAP = 1_000_000


class LastIds:
    """The highest id given out so far, by table."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def note(self, table: str, last: int) -> None:
        self.known[table] = max(self.known.get(table, 0), last)

    def read(self, connection: Connection) -> None:
        if _counts_ids(connection):
            for table, last in connection.execute("SELECT name, seq FROM sqlite_sequence"):
                self.note(table, last)

    def skip(self, connection: Connection) -> None:
        """Let the ids of this (fresh) file begin beyond those that are known."""
        if not _counts_ids(connection):
            return
        for table, last in self.known.items():
            connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last + GAP))


def _counts_ids(connection: Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'")
    return found.fetchone() is not None
