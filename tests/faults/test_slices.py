"""A million rows: no slice of a long job holds the write lock for more than a tenth of a second of the processor.

The processor's time of the slice, not the clock's: that one is the machine's, and the card's. Both are printed.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.archives import TS, Archive, record

LIMIT_S = 0.1
BATCH = 2000


class Turns:
    """How long each holder of the write lock held it: (processor, clock), in seconds."""

    def __init__(self, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: list[tuple[float, float]] = []
        turn = archive.database._write_turn

        @contextmanager
        def timed() -> Iterator[None]:
            with turn():
                began = time.thread_time(), time.monotonic()
                try:
                    yield
                finally:
                    self.held.append((time.thread_time() - began[0], time.monotonic() - began[1]))

        monkeypatch.setattr(archive.database, "_write_turn", timed)

    def worst(self) -> tuple[float, float]:
        held, self.held = self.held, []
        return max(cpu for cpu, _ in held), max(clock for _, clock in held)


#: In this order, on one archive of which three quarters are delivered.
JOBS: dict[str, Callable[[Archive, int], object]] = {
    "discard a range": lambda archive, rows: archive.maintenance.discard(0, TS + rows // 4),
    "past its age": lambda archive, rows: archive.maintenance.shrink(1 << 60, TS + rows // 2),
    "republish": lambda archive, rows: archive.maintenance.mark_for_publishing(0, 1 << 60),
    "beyond the quota": lambda archive, rows: archive.maintenance.shrink(archive.database.file_bytes() // 4 * 3, None),
    "evict what is undelivered": lambda archive, rows: archive.maintenance.shrink(1 << 20, None),
}


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_no_slice_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = int(os.environ.get("TEG_TORTURE_RECORDS", "1000000"))
    archive = Archive(tmp_path)
    for first in range(1, rows + 1, BATCH):
        archive.table.store([record(number, 20) for number in range(first, first + BATCH)], [], None)
        if first <= rows * 3 // 4:
            archive.deliver(range(first, first + BATCH))
    turns, worst = Turns(archive, monkeypatch), {}
    for name, job in JOBS.items():
        job(archive, rows)
        cpu_s, clock_s = worst[name] = turns.worst()
        print(f"{name}: at most {cpu_s * 1000:.0f} ms of the processor, {clock_s * 1000:.0f} ms by the clock")
    archive.assert_account()
    archive.close()
    assert {name: cpu_s for name, (cpu_s, _) in worst.items() if cpu_s > LIMIT_S} == {}
