"""Curves and the account of the day: rings of fixed size, gaps where nothing was read, clocks that leap."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from teg.console.page.history import ACCOUNT, DAY_S, HOUR, WEEK, History, Ring, Sample


def tally(**values: int) -> dict[str, int]:
    return {**dict.fromkeys((*ACCOUNT, "pending"), 0), **values}


def test_rates_latency_and_backlog_of_an_interval() -> None:
    ring = Ring(10, 6)
    ring.add(0, Sample(accepted=0, delivered=0, backlog=5, publishes=0, latency_s=0))
    ring.add(9, Sample(accepted=18, delivered=9, backlog=14, publishes=3, latency_s=0.6))
    ring.add(10, Sample(accepted=18, delivered=18, backlog=0, publishes=3, latency_s=0.6))
    found = ring.as_dict()
    assert found["accepted_per_s"] == [2.0, 0.0]
    assert found["delivered_per_s"] == [1.0, 9.0]
    assert found["latency_ms"] == [200.0, None]
    assert found["backlog"] == [14.0, 0.0]


def test_time_without_a_reading_is_a_gap() -> None:
    ring = Ring(10, 10)
    for now_s in (0, 10, 50, 60):
        ring.add(now_s, Sample(0, 0, 1, 0, 0))
    assert ring.as_dict()["backlog"] == [1.0, 1.0, None, None, None, 1.0, 1.0]


def test_a_counter_that_went_back_is_no_negative_rate() -> None:
    ring = Ring(10, 10)
    ring.add(0, Sample(100, 100, 0, 0, 0))
    ring.add(10, Sample(99, 0, 0, 0, 0))
    assert ring.as_dict()["accepted_per_s"][-1] == 0.0
    assert ring.as_dict()["delivered_per_s"][-1] == 0.0


@given(st.lists(st.floats(0, 1e7), max_size=60))
def test_no_ring_grows_beyond_its_size_and_all_columns_stay_alike(steps_s: list[float]) -> None:
    ring, now_s = Ring(10, 8), 0.0
    for step_s in steps_s:
        now_s += step_s
        ring.add(now_s, Sample(0, 0, 0, 0, 0))
    found = ring.as_dict()
    assert len({len(found[column]) for column in found if isinstance(found[column], list)}) == 1
    assert len(found["backlog"]) <= 8
    json.dumps(found, allow_nan=False)


def test_an_hour_and_a_week_are_kept_and_no_more() -> None:
    history = History()
    seconds = int(WEEK[0] * WEEK[1]) + 7_200
    for now_s in range(0, seconds, 300):
        history.add(now_s, tally(accepted=now_s), now_s, now_s / 100)
    found = history.as_dict()
    assert len(found["week"]["backlog"]) == WEEK[1] == 336
    assert len(found["hour"]["backlog"]) == HOUR[1] == 360
    assert found["week"]["step_s"] * found["week"]["bins"] == 7 * DAY_S
    assert found["hour"]["step_s"] * found["hour"]["bins"] == 3600
    assert math.isclose(found["week"]["accepted_per_s"][100], 1.0)


def test_the_account_is_of_the_last_day_or_since_the_start() -> None:
    history = History()
    history.add(0, tally(accepted=1_000, delivered=900), 0, 0)
    young = history.day(600, tally(accepted=1_010, delivered=905, pending=7, evicted=1))
    unchanged = dict.fromkeys(("stored", "held", "set_aside", "lost"), 0)
    assert young == {"since_s": 600, "accepted": 10, "delivered": 5, "evicted": 1, "pending": 7, **unchanged}
    for now_s in range(0, int(3 * DAY_S), 600):
        history.add(now_s, tally(accepted=1_000 + now_s), 0, 0)
    old = history.day(3 * DAY_S, tally(accepted=1_000 + int(3 * DAY_S)))
    assert DAY_S - WEEK[0] <= old["since_s"] <= DAY_S
    assert old["accepted"] == old["since_s"]


def test_before_the_first_reading_there_is_no_account() -> None:
    assert History().day(5, tally()) == {"since_s": 0}
