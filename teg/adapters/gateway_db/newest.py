"""The newest of what the controller sent, read back out of the archive while somebody looks at the status page."""

from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import KEPT

#: Bounds of one look: rows, rows looked at for them, bytes of their text.
MAX_ROWS, LOOKED_AT, MAX_BYTES = 300, 3_000, 256_000


class NewestRecords:
    """Reads only; the gateway's own records (no `source_row`) and what was sent as a log do not count."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recent(self) -> list[bytes]:
        """The stored JSON of the newest records, newest first.

        Raises:
            Unavailable: the archive cannot be read now.
        """
        sql = (
            "SELECT CAST(coalesce(payload, message) AS BLOB) FROM record"
            f" WHERE id > (SELECT max(id) FROM record) - {LOOKED_AT} AND kind = {KEPT} AND source_row IS NOT NULL"
            f" ORDER BY id DESC LIMIT {MAX_ROWS}"
        )
        found: list[bytes] = []
        size = 0
        with self._database.reading(sql, ()) as rows:
            for (message,) in rows:
                size += len(message)
                if size > MAX_BYTES:
                    break
                found.append(message)
        return found
