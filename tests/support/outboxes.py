"""The outbox and its archive on a real file, with short-hands for tests."""

from pathlib import Path
from typing import Any

from teg.adapters.gateway_db import outbox as records
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.unproven import UnprovenTable
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.validation import Record

TS = 1_767_225_600_000


class Archive:
    """A record table on a real file, with short-hands. Whether the server gives proofs is not known yet."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path / "gateway.db")
        self.database.open(records.SCHEMA)
        self.table = RecordTable(self.database)
        self.maintenance = ArchiveMaintenance(self.database)
        self.unproven = UnprovenTable(self.database)

    def store(self, *numbers: int, log: bool = False, size: int = 0, left_upto: int | None = None) -> None:
        self.table.store([record(number, log, size) for number in numbers], [], left_upto)

    def pending(self, lane: Stream = Stream.DATA) -> list[int]:
        return [row[0] for row in self.table.pending(lane, 0, 1_000_000, 1 << 40)]

    def deliver(self, *ids: int, lane: Stream = Stream.DATA, transient: bool = False) -> None:
        self.table.mark_published([Delivery(lane, list(ids), transient)])

    def ids(self) -> list[int]:
        return [row_id for (row_id,) in self.database.rows("SELECT id FROM record ORDER BY id")]

    def counts(self) -> dict[str, Any]:
        return self.maintenance.counts()

    def assert_account(self) -> None:
        """accepted = stored + acknowledged + pending + held + evicted + lost, at any moment."""
        counts = self.counts()
        known = ("stored", "acknowledged", "pending", "held", "evicted", "lost")
        assert counts["accepted"] == sum(counts[name] for name in known), counts
        assert min(counts[name] for name in known) >= 0, counts


def record(number: int, log: bool = False, size: int = 0) -> Record:
    return Record(number, TS + number, 1, f'{{"ts":{TS + number},"values":{{"n":{number}}}}}' + " " * size, None, log)
