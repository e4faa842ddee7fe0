"""A real gateway that thins what it sends, killed between: the server has the model's values, the archive all."""

import subprocess
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import CONSUMER, PROJECT, wait_until
from tests.support.site import Site, running_site

START_MS = 1_767_225_600_000
RULES = "mean: mean every 60s; last: every 60s; change: change 2 every 1h; gone: never"
#: Of twenty minutes, one record each two seconds.
RECORDS, STEP_MS, HEAPS = 600, 2000, 5


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as running:
        yield running


def record(number: int) -> str:
    values = {"mean": number, "last": number, "change": number // 7, "gone": number, "n": number}
    if number % 3:
        del values["n"]
        del values["change"]
    return orjson.dumps({"ts": START_MS + number * STEP_MS, "values": values}).decode()


def expected() -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    windows = RECORDS * STEP_MS // 60_000
    for window in range(windows):
        numbers = range(window * 30, window * 30 + 30)
        last_ms = START_MS + numbers[-1] * STEP_MS
        found["mean", last_ms] = sum(numbers) / 30
        found["last", last_ms] = numbers[-1]
    told = None
    for number in range(0, RECORDS, 3):
        found["n", START_MS + number * STEP_MS] = number
        if told is None or abs(number // 7 - told) > 2:
            told = found["change", START_MS + number * STEP_MS] = number // 7
    return found


def told(site: Site, keys: Container[str]) -> dict[tuple[str, int], Any]:
    return {place: value for place, value in site.device.telemetry().items() if place[0] in keys}


def test_killed_again_and_again_it_tells_what_the_model_says(tmp_path: Path, server: ThingsBoard) -> None:
    """Each heap is of whole windows: one that comes minutes after its window was told is a point of its own."""
    wanted = expected()
    keys = {key for key, _ in wanted}
    with running_site(tmp_path, server, TEG_REPORT=RULES) as site:
        for first in range(0, RECORDS, RECORDS // HEAPS):
            site.inbox.insert_many([record(number) for number in range(first, first + RECORDS // HEAPS)])
            wait_until(partial(has_more, site, first // 3), 60, "something of the heap")
            site.gateway.kill()
            site.gateway.start()
        wait_until(lambda: set(told(site, keys)) >= set(wanted), 90, "all that the model tells")
        wait_until(lambda: site.inbox.count() == 0, 30, "the inbox is empty")
        wait_until(lambda: site.pending() == 0, 30, "nothing waits")
        assert told(site, keys) == wanted
        assert told(site, {"gone"}) == {}
        site.assert_account()
        counters = site.counters()
        assert (counters["accepted"], counters["held"]) == (RECORDS, RECORDS - RECORDS // 3)
        assert site.gateway.rows("SELECT count(*) FROM record WHERE kind = 0") == [(RECORDS,)]


def has_more(site: Site, records: int) -> bool:
    return len(told(site, {"n"})) > records


def test_rules_that_cannot_be_read_refuse_the_start_with_one_clear_message(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "TB_HOST": "localhost", "TB_PORT": "1", "TB_TLS": "off",
                   "TEG_DATA_PATH": str(tmp_path), "TEG_CONTROLLER_RUNTIME": "none", "TEG_ENV_FILE": "/dev/null",
                   "TEG_REPORT": "pm25: maen every 60s; door: change"}  # fmt: skip
    ended = subprocess.run([CONSUMER, "gateway.huey"], cwd=PROJECT, env=environment, capture_output=True, text=True,
                           timeout=60, check=False)  # fmt: skip
    assert ended.returncode == 1
    assert "TEG_REPORT: 'pm25: maen every 60s': 'maen' is no strategy (did you mean 'mean'?)" in ended.stderr
    assert "door" not in ended.stderr
    assert "Traceback" not in ended.stderr
