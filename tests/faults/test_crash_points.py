"""kill -9, EIO and ENOSPC at every write, sync and change of a name in a record's life; the next life has it all.

A sample of the points runs with all tests (the seed is printed, TEG_TORTURE_SEED repeats it), all of them in the deep
run.
"""

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.crash_points import DeviceLives, Point, fresh, prepared_device
from tests.support.device_life import DELIVERED_BEFORE, NONSENSE, ROWS
from tests.support.storage_life import LedgerError, Server, compare, read_in_this_process

SCENARIOS = ("ingest", "publish", "take_over", "salvage", "rescue", "queue")
#: Points of each scenario and effect that are tried with all tests.
SAMPLE = 2

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceLives]:
    read_in_this_process(monkeypatch.setattr)  # for what is prepared here
    lives = DeviceLives()
    yield lives
    lives.close()


def check(lives: DeviceLives, prepared: Path, scenario: str, point: Point) -> None:
    """The disturbed life ends by the kill or by itself, the next one finishes, and the books agree."""
    folder = fresh(prepared)
    status = lives.live(folder, scenario, "-e", f"trace={point.call}", "-e", point.injection)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed if point.effect == "KILL" else status == 0, f"{point}: ended with {status}"
    assert lives.live(folder, "finish") == 0, point
    try:
        compare(folder, Server(folder / "server"), expected_on_server(folder, scenario), set_aside=NONSENSE)
    except LedgerError as error:
        raise LedgerError(f"{point}: {error}") from error


def expected_on_server(folder: Path, scenario: str) -> Sequence[int]:
    """What the reference had delivered is kept here, and not sent."""
    if scenario == "take_over":
        with (folder / "server").open("ab") as server:
            server.write(b"".join(b'[{"ts":1,"values":{"n":%d}}]\n' % number for number in DELIVERED_BEFORE))
    return ROWS


def sampled(points: Sequence[Point], seed: int) -> Iterator[Point]:
    for effect in sorted({point.effect for point in points}):
        mine = [point for point in points if point.effect == effect]
        yield from random.Random(f"{seed}{effect}").sample(mine, min(SAMPLE, len(mine)))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_sample_of_the_points(lives: DeviceLives, tmp_path: Path, scenario: str) -> None:
    seed = int(os.environ.get("TEG_TORTURE_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}")
    prepared = prepared_device(tmp_path, scenario)
    points = list(lives.points(prepared, scenario))
    assert Counter(point.effect for point in points)["KILL"] >= 15, "what a whole life does is more than a handful"
    for point in sampled(points, seed):
        check(lives, prepared, scenario, point)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_point(lives: DeviceLives, tmp_path: Path, scenario: str) -> None:
    prepared = prepared_device(tmp_path, scenario)
    points = list(lives.points(prepared, scenario))
    broken = []
    for point in points:
        try:
            check(lives, prepared, scenario, point)
        except AssertionError as error:
            broken.append(str(error).splitlines()[0])
    print(f"{scenario}: {len(points)} points, {dict(Counter(point.effect for point in points))}, {len(broken)} broken")
    assert broken == []


def test_the_books_see_a_row_that_is_lost(lives: DeviceLives, tmp_path: Path) -> None:
    """Guards the tests above: they can fail."""
    folder = fresh(prepared_device(tmp_path, "ingest"))
    assert lives.live(folder, "finish") == 0
    compare(folder, Server(folder / "server"), ROWS, set_aside=NONSENSE)
    with pytest.raises(LedgerError, match="the server has every record"):
        compare(folder, Server(folder / "server"), range(1, 26), set_aside=NONSENSE)
