"""Every statement on gateway.db finds its rows by a key, and no slice of a long job grows with the archive."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from teg.adapters.gateway_db import eviction
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.validation import SetAside
from tests.support.archives import TS, Archive, record

#: Read from end to end on purpose, outside of any write transaction: whole-archive statistics, the count and the size
#: of the dead letters (at most a tenth of the quota), the small tables.
STATED = (
    "SELECT count(*) FROM dead_letter",
    "SELECT coalesce(sum(length(message)), 0) FROM dead_letter",
    "SELECT max(id) FROM dead_letter",
    "INSERT INTO outbox",  # of the rows inserted just now: by id
)
TABLES = ("record", "outbox", "dead_letter")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "data")
    yield archive
    archive.close()


@contextmanager
def traced(archive: Archive) -> Iterator[set[str]]:
    """All statements that ran, with their values filled in."""
    seen: set[str] = set()
    with archive.database.transaction() as connection:
        pass  # this thread's
    connection.set_trace_callback(lambda sql: seen.add(" ".join(sql.split())))
    try:
        yield seen
    finally:
        connection.set_trace_callback(None)


def everything(archive: Archive) -> None:
    """Each path through the tables once, at least."""
    archive.store(*range(1, 50))
    archive.table.store(
        [record(60)], [SetAside(61, "", b"x", "why"), SetAside(62, "", record(62).message.encode(), "y")], 5
    )
    archive.table.store_own([(TS, b'{"ts":1,"values":{"a":1}}')])
    archive.deliver(range(1, 20))
    archive.deliver([22, 25])
    archive.table.pending(Stream.DATA, 0, 10, 1000)
    archive.table.set_aside(Stream.DATA, 30, "poison")
    archive.table.unfinished()
    archive.maintenance.mark_for_publishing(TS, TS + 10)
    archive.maintenance.stats(TS, TS + 5)
    archive.maintenance.counts()
    archive.maintenance.dead_letters()
    archive.maintenance.retry_dead_letters(None)
    archive.maintenance.drop_dead_letters([1])
    archive.maintenance.discard(TS, TS + 3)
    archive.maintenance.shrink(1, TS + 8)


def test_no_statement_reads_a_big_table_from_end_to_end(archive: Archive) -> None:
    with traced(archive) as seen:
        everything(archive)
    assert len(seen) > 60, "the trace is empty"
    plain = sqlite3.connect(archive.path)
    scans = [
        f"{sql}: {detail}"
        for sql in sorted(seen)
        if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")) and not sql.startswith(STATED)
        for *_, detail in plain.execute(f"EXPLAIN QUERY PLAN {sql}")
        if detail.startswith("SCAN") and detail.split()[1] in TABLES and not limited(sql)
    ]
    plain.close()
    assert scans == []


def limited(sql: str) -> bool:
    """`ORDER BY id LIMIT n` without a condition walks the table by its key and stops after n rows."""
    return "ORDER BY id LIMIT" in sql and "WHERE" not in sql


def test_the_check_itself_finds_a_scan(archive: Archive) -> None:
    archive.store(1)
    details = archive.database.rows("EXPLAIN QUERY PLAN DELETE FROM outbox WHERE record_id = 1")
    assert details[0][3].startswith("SCAN")


class Steps:
    """SQLite's own count of what a write transaction cost: virtual-machine steps, in hundreds."""

    def __init__(self, archive: Archive) -> None:
        self.most = self._now = 0
        with archive.database.transaction() as connection:
            pass  # this thread's
        connection.set_progress_handler(self._step, 100)
        connection.set_trace_callback(self._statement)

    def _step(self) -> int:
        self._now += 1
        return 0

    def _statement(self, sql: str) -> None:
        if sql.startswith("BEGIN"):
            self._now = 0
        if sql.startswith("COMMIT"):
            self.most = max(self.most, self._now)


JOBS: dict[str, Callable[[Archive], object]] = {
    "eviction of undelivered rows": lambda archive: archive.maintenance.shrink(
        archive.database.size_bytes() * 4 // 5, None
    ),
    "retention by age": lambda archive: archive.maintenance.shrink(1 << 40, TS + 1500),
    "discarding": lambda archive: archive.maintenance.discard(TS, TS + 1500),
    "marking for publishing": lambda archive: archive.maintenance.mark_for_publishing(TS, TS + 1900),
    "setting aside": lambda archive: archive.table.set_aside(Stream.DATA, archive.pending_rows()[-1][0], "x"),
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS.keys())
def test_a_slice_costs_the_same_however_large_the_archive_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Callable[[Archive], object]
) -> None:
    monkeypatch.setattr(eviction, "SLICE", 50)
    monkeypatch.setattr("teg.adapters.gateway_db.republish.SLICE", 50)
    costs = []
    for rows in (2_000, 20_000):
        archive = Archive(tmp_path / str(rows))
        for first in range(0, rows, 1000):
            archive.store(*range(first, first + 1000))
        archive.deliver(range(1, 1001))
        steps = Steps(archive)
        job(archive)
        costs.append(steps.most)
        archive.close()
    assert costs[1] <= costs[0] * 1.5 + 5, f"hundreds of steps in one transaction: {costs}"
