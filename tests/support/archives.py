"""An archive on a real file with short-hands, and what can be done to its files."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from teg.adapters.gateway_db import outbox, salvage, state, unproven
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.salvage import Salvage
from teg.adapters.gateway_db.unproven import UnprovenTable
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.validation import Record

TS = 1_767_225_600_000


def record(number: int, size: int = 0, source_row: int | None = None) -> Record:
    text = f'{{"ts":{TS + number},"values":{{"n":{number},"x":"{"x" * size}"}}}}'
    return Record(number if source_row is None else source_row, TS + number, 1, text, None, False)


class Archive:
    def __init__(self, directory: Path, proofs: bool = False) -> None:
        self.proofs = proofs
        self.path = directory / "gateway.db"
        self.start()

    def start(self) -> None:
        """With a server that gives no proofs: delivered is all there is to know."""
        self.database = Database(self.path, on_fresh=salvage.carry_over)
        self.database.open(outbox.SCHEMA, state.SCHEMA, salvage.SCHEMA)
        unproven.UnprovenTable(self.database).keeps_watermarks(False)  # acknowledged is all there is to know
        self.table = RecordTable(self.database)
        UnprovenTable(self.database).keeps_watermarks(self.proofs)
        self.maintenance = ArchiveMaintenance(self.database)
        self.state = state.StateTable(self.database)
        self.salvage = Salvage(self.database)

    def after_kill(self) -> "Archive":
        """What the next life finds if this one is killed now: the files at the names, copied (by another process:
        closing a descriptor of them would drop this one's locks)."""
        copy = self.path.parent.with_name("after-kill")
        subprocess.run(["cp", "-a", self.path.parent, copy], check=True)
        index_of(copy / self.path.name).unlink(missing_ok=True)
        return Archive(copy)

    def store(self, *numbers: int, size: int = 0) -> None:
        self.table.store([record(number, size) for number in numbers], [], None)

    def deliver(self, ids: Sequence[int]) -> None:
        self.table.mark_published([Delivery(Stream.DATA, list(ids), False)])

    def pending_rows(self) -> list[tuple[int, int]]:
        """(id, n)"""
        rows = self.database.rows(
            "SELECT r.id, r.ts FROM outbox o JOIN record r ON r.id = o.record_id WHERE lane = 1 ORDER BY r.id"
        )
        return [(row_id, ts - TS) for row_id, ts in rows]

    def pending(self) -> list[int]:
        return sorted(number for _, number in self.pending_rows())

    def numbers(self) -> list[int]:
        return sorted(ts - TS for (ts,) in self.database.rows("SELECT ts FROM record"))

    def counts(self) -> dict[str, Any]:
        return self.maintenance.counts()

    def assert_account(self) -> None:
        counts = self.counts()
        ways = counts["delivered"] + counts["pending"] + counts["held"] + counts["evicted"] + counts["lost"]
        assert counts["accepted"] == ways, counts

    def close(self) -> None:
        self.database.close()


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def index_of(path: Path) -> Path:
    return path.with_name(path.name + "-shm")


def replace_by_copy(path: Path) -> None:
    """A restore: another file takes the name."""
    other = path.with_name("backup")
    shutil.copyfile(path, other)
    other.replace(path)


def replace_by_older(path: Path) -> None:
    """A restore of a database that is sound, and knows nothing of the last rows."""
    other = path.with_name("older")
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE record (id INTEGER PRIMARY KEY)")
    connection.close()
    other.replace(path)


def symlink_in_place(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def move_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved-directory"))


def remove_all(path: Path) -> None:
    for part in (path, log_of(path), index_of(path)):
        part.unlink()


def move_all(path: Path) -> None:
    folder = path.parent / "elsewhere"
    folder.mkdir()
    for part in (path, log_of(path), index_of(path)):
        part.rename(folder / part.name)


def replace_log(path: Path) -> None:
    other = path.with_name("other-wal")
    other.write_bytes(log_of(path).read_bytes()[:2000])
    other.replace(log_of(path))


#: What leaves the open files whole: every row survives.
AT_THE_NAMES: dict[str, Callable[[Path], object]] = {
    "database removed": Path.unlink,
    "database moved away": lambda path: path.rename(path.with_name("backup")),
    "database replaced by its copy": replace_by_copy,
    "database replaced by an older one": replace_by_older,
    "symbolic link in place": symlink_in_place,
    "hard link made": lambda path: os.link(path, path.with_name("second-name")),
    "log removed": lambda path: log_of(path).unlink(),
    "log moved away": lambda path: log_of(path).rename(path.with_name("log")),
    "log replaced": replace_log,
    "index removed": lambda path: index_of(path).unlink(),
    "all removed": remove_all,
    "all moved away": move_all,
    "directory moved": move_directory,
    "directory removed": lambda path: shutil.rmtree(path.parent),
}
