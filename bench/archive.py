"""How long a look into a large archive takes: a day's statistics, retention with nothing to do, `status`.

python -m bench.archive [--rows 1000000] [--times 5]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.records import record
from teg.adapters.gateway_db import outbox
from teg.adapters.gateway_db.counters import count
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance

FIRST_MS, EVERY_MS, DAY_MS = 1_600_000_000_000, 1000, 86_400_000
SLICE = 50_000


def archive_of(path: Path, rows: int) -> Database:
    """A `gateway.db` with so many delivered records, one a second."""
    database = Database(path)
    database.open(outbox.SCHEMA)
    for first in range(0, rows, SLICE):
        with database.transaction(durable=False) as connection:
            numbers = range(first, min(rows, first + SLICE))
            records = [(number, FIRST_MS + number * EVERY_MS, 5, record(number), None, 0) for number in numbers]
            outbox.insert_records(connection, records, None)
            count(connection, accepted=len(records), delivered=len(records))
    database.checkpoint()
    return database


def looks(database: Database) -> dict[str, Callable[[], object]]:
    maintenance = ArchiveMaintenance(database)
    day_ms = FIRST_MS - FIRST_MS % DAY_MS + 2 * DAY_MS
    return {
        "archive_stats of a day": lambda: maintenance.stats(day_ms, day_ms + DAY_MS - 1),
        "retention, nothing to do": lambda: maintenance.shrink(1 << 50, FIRST_MS - DAY_MS),
        "counts of status": maintenance.counts,
    }


def measured(rows: int, times: int) -> dict[str, list[float]]:
    """Milliseconds of each look, after one that is not counted."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        database = archive_of(Path(name) / "gateway.db", rows)
        for what, look in looks(database).items():
            look()
            found[what] = [_milliseconds(look) for _ in range(times)]
        database.close()
    return found


def _milliseconds(look: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    look()
    return (time.perf_counter() - started_s) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    for what, taken in measured(options.rows, options.times).items():
        print(f"{what:26} median {statistics.median(taken):8.2f} ms ({min(taken):.2f}–{max(taken):.2f})")


if __name__ == "__main__":
    main()
