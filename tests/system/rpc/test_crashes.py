"""kill -9 at every system call of a call's life: at most one effect, and the answer before a reboot."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.traced_lives import TracedLives

CALLS = ("openat", "write", "pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "close")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]


class Driver(TracedLives):
    def __init__(self) -> None:
        super().__init__("tests.support.rpc_driver")

    def run(self, folder: Path, method: str, *strace: str) -> bool:
        """One process life that gets the call; True if it was killed."""
        status = self.life(f"{folder} {method}", *strace)
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, status
        return status != 0


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("method", ["reboot", "run_command"])
@pytest.mark.parametrize("call", CALLS)
def test_at_most_once_with_a_kill_at_every_point(driver: Driver, tmp_path: Path, method: str, call: str) -> None:
    """Each point gets a fresh folder, the killed life, and two more with the same call delivered again."""
    points = 0
    while True:
        points += 1
        folder = tmp_path / str(points)
        folder.mkdir()
        killed = driver.run(folder, method, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={points}")
        before = lines(folder / "effects")
        if method == "reboot" and before:
            assert lines(folder / "answers") == ['{"message":"OK - Rebooting"}'], "the answer comes first"
        for _ in range(2):
            assert not driver.run(folder, method)
        where = f"{call} number {points}"
        assert len(lines(folder / "effects")) <= 1, where
        repeated = lines(folder / "answers")[-2:]
        assert repeated[0] == repeated[1], where
        told = repeated[0].partition('"message":"')[2]
        if not told.startswith("Error - interrupted"):
            assert told.startswith("OK - "), where
        if not killed:
            break
    assert lines(folder / "effects") == ["reboot" if method == "reboot" else "run"], "the untouched life has its effect"


def test_the_points_include_both_sides_of_every_step(driver: Driver, tmp_path: Path) -> None:
    """Guards the test above: what a whole life traces is more than a handful of calls."""
    trace = tmp_path / "trace"
    driver.run(tmp_path, "reboot", "-o", str(trace), "-e", f"trace={','.join(CALLS)}")
    order = [line.partition("(")[0] for line in trace.read_text().splitlines()]
    assert order.count("fdatasync") >= 3, "schema, intent and effect are synced"
    answer = next(n for n, line in enumerate(trace.read_text().splitlines()) if "OK - Rebooting" in line)
    effect = next(n for n, line in enumerate(trace.read_text().splitlines()) if '"reboot\\n"' in line)
    between = order[answer:effect]
    assert "fdatasync" in between, "the effect is noted, durably, after the answer and before it happens"
    assert "fdatasync" in order[:answer], "the intent is durable before the answer"
