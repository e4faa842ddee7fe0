"""What a span of the archive holds: the same by days as row by row, and read side by side where it can be."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teg.adapters.gateway_db import outbox
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import insert_records
from teg.adapters.gateway_db.statistics import DAY_MS, MAX_DAYS, statistics
from teg.domain.telemetry.validation import Record

TS = 1_767_225_600_000
EVERYTHING = (0, 1 << 62)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "gateway.db")
    database.open(outbox.SCHEMA)
    yield database
    database.close()


def fill(database: Database, rows: list[tuple[int, str, bool]]) -> None:
    with database.transaction() as connection:
        connection.execute("DELETE FROM record")
        records = [Record(n, ts_ms, 1, text, None, transient) for n, (ts_ms, text, transient) in enumerate(rows)]
        insert_records(connection, records, None)


def counted(rows: list[tuple[int, str, bool]], start_ms: int, end_ms: int) -> tuple[int, int, int | None, int | None]:
    kept = [(ts_ms, text) for ts_ms, text, transient in rows if not transient and start_ms <= ts_ms <= end_ms]
    times = [ts_ms for ts_ms, _ in kept]
    size = sum(len(text.encode()) for _, text in kept)
    return len(kept), size, min(times, default=None), max(times, default=None)


_ROWS = st.lists(
    st.tuples(st.integers(0, 5 * 24).map(lambda hours: TS + hours * 3_600_000), st.text(max_size=5), st.booleans()),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(rows=_ROWS, ordered=st.booleans(), start=st.integers(0, 120), hours=st.integers(0, 120))
def test_it_is_what_counting_each_row_gives(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str, bool]],
    ordered: bool,
    start: int,
    hours: int,
) -> None:
    database = Database(tmp_path_factory.mktemp("archive") / "gateway.db")
    database.open(outbox.SCHEMA)
    rows = sorted(rows) if ordered else rows
    fill(database, rows)
    for span in (EVERYTHING, (TS + start * 3_600_000, TS + (start + hours) * 3_600_000)):
        found = statistics(database, *span)
        told = (found.rows, found.message_bytes, found.first_ts_ms, found.last_ts_ms)
        assert told == counted(rows, *span)
        assert sum(found.rows_per_day.values()) == found.rows
    database.close()


def test_bytes_are_bytes(database: Database) -> None:
    fill(database, [(TS, "grün", False)])
    assert statistics(database, *EVERYTHING).message_bytes == 5


def test_a_day_is_told_in_utc(database: Database) -> None:
    fill(database, [(TS - 1, "a", False), (TS, "b", False), (TS + DAY_MS - 1, "c", False)])
    assert statistics(database, *EVERYTHING).rows_per_day == {"2025-12-31": 1, "2026-01-01": 2}


def test_more_days_than_are_told_are_counted(database: Database) -> None:
    fill(database, [(TS + day * DAY_MS, "x", False) for day in range(MAX_DAYS + 5)])
    found = statistics(database, *EVERYTHING)
    assert (found.rows, len(found.rows_per_day)) == (MAX_DAYS + 5, MAX_DAYS)
    assert found.last_ts_ms == TS + (MAX_DAYS + 4) * DAY_MS


def steps(database: Database, rows: list[tuple[int, str, bool]]) -> int:
    """Of SQLite's machine, in thousands: a count that no machine changes."""
    fill(database, rows)
    done = 0

    def step() -> int:
        nonlocal done
        done += 1
        return 0

    with database.transaction() as connection:
        pass  # this thread's
    connection.set_progress_handler(step, 1000)
    statistics(database, TS, TS + DAY_MS - 1)
    connection.set_progress_handler(None, 0)
    return done


def test_one_stray_row_makes_nobody_read_the_whole_archive(database: Database) -> None:
    """A record of that day at the archive's other end: its day is looked up by the index instead."""
    other_days = [(TS + (1 + n) * DAY_MS, "x", False) for n in range(20_000)]
    day = [(TS + n, "x", False) for n in range(100)]
    usual = steps(database, day + other_days)
    assert steps(database, day + other_days + [(TS + 50, "late", False)]) <= 2 * usual + 10
