"""What the link carries: counted by the month, forecast, kept over restarts; and what a budget slows down."""

import datetime
import logging
from typing import Any

import pytest

from teg.domain.errors import Unavailable
from teg.domain.server import link_budget
from teg.domain.server.link_budget import LONGEST_GATHERING_S, MB, LinkBudget, LinkMeter
from tests.support.links import FakeClock
from tests.support.states import MemoryState

DAY_S = 86_400


def at(text: str) -> FakeClock:
    clock = FakeClock()
    clock.ms = round(datetime.datetime.fromisoformat(text + "+00:00").timestamp() * 1000)
    return clock


def used(meter: LinkMeter) -> tuple[int, int]:
    summary = meter.summary()
    return summary["sent_bytes"], summary["received_bytes"]


def test_a_month_is_counted_and_forecast_as_the_last_day_went() -> None:
    clock = at("2026-11-01T00:00:00")
    meter = LinkMeter(clock)
    assert meter.summary()["forecast_bytes"] is None
    for _ in range(10 * 24):
        meter.add(800, 200)
        clock.advance(3600)
    assert used(meter) == (800 * 240, 200 * 240)
    assert meter.summary()["per_day_bytes"] == pytest.approx(24_000, rel=0.05)
    assert meter.summary()["forecast_bytes"] == pytest.approx(720_000, rel=0.05)


def test_ten_minutes_are_the_least_for_a_forecast() -> None:
    clock = at("2026-11-10T12:59:00")
    meter = LinkMeter(clock)
    meter.add(1000, 0)
    clock.advance(599)
    assert meter.summary()["forecast_bytes"] is None
    clock.advance(1)
    assert meter.summary()["per_day_bytes"] == 144_000


def test_a_new_month_begins_at_nothing() -> None:
    clock = at("2026-11-30T23:59:59")
    meter = LinkMeter(clock)
    meter.add(500, 500)
    clock.advance(2)
    assert used(meter) == (0, 0)


@pytest.mark.parametrize("wrong", ["1970-01-01T00:00:10", "2026-10-31T00:00:00"])
def test_a_clock_that_is_behind_forgets_nothing(wrong: str) -> None:
    clock = at("2026-11-10T00:00:00")
    meter = LinkMeter(clock)
    meter.add(500, 500)
    clock.ms = at(wrong).ms
    meter.add(1, 1)
    clock.ms = at("2026-11-10T00:01:00").ms
    meter.add(1, 1)
    assert used(meter) == (502, 502)


def test_a_clock_that_was_far_ahead_does_not_stop_the_count() -> None:
    clock = at("2099-01-01T00:00:00")
    meter = LinkMeter(clock)
    meter.add(500, 500)
    clock.ms = at("2026-11-10T00:00:00").ms
    meter.add(7, 0)
    assert used(meter) == (7, 0)


def test_what_was_counted_survives_a_restart() -> None:
    clock, state = at("2026-11-10T00:00:00"), MemoryState()
    first = LinkMeter(clock)
    first.add(500, 50)
    clock.advance(3600)
    first.save(state)
    second = LinkMeter(clock)
    second.add(5, 5)
    second.load(state)
    assert used(second) == (505, 55)
    assert second.summary()["per_day_bytes"] == pytest.approx(560 * 24, rel=0.01)


@pytest.mark.parametrize(
    "kept", [None, 5, [], {}, {"month": "x"}, {"month": 1, "sent": 2, "received": 3, "hours": 4, "since_ms": 5}]
)
def test_what_cannot_be_understood_counts_as_nothing(kept: Any) -> None:
    state = MemoryState()
    state.put(link_budget.TRAFFIC_KEY, kept)
    meter = LinkMeter(at("2026-11-10T00:00:00"))
    meter.load(state)
    assert used(meter) == (0, 0)


class Month:
    """A gateway with a budget; each look is ten minutes after the last."""

    def __init__(self, megabytes: int | None, least_s: float = 0.0) -> None:
        self.clock = at("2026-11-01T00:00:00")
        self.state = MemoryState()
        self.told: list[Any] = []
        self.budget = LinkBudget(LinkMeter(self.clock), self.state, self.clock, megabytes, least_s, self.told.append)

    def look(self, bytes_each: int, times: int = 1) -> float:
        for _ in range(times):
            self.budget.meter.add(bytes_each, 0)
            self.clock.advance(600)
            assert self.budget.due or not self.budget.metered
            self.budget.look()
        return self.budget.gathering_s


TOO_MUCH, LITTLE = 50 * MB // 2000, 50 * MB // 20_000


def test_without_a_budget_nothing_is_gathered_or_written() -> None:
    month = Month(None)
    assert month.look(10 * MB, 50) == 0.0
    assert not month.budget.due
    assert month.state.keys("") == []


def test_beyond_the_budget_records_are_gathered_longer_and_longer_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    month = Month(50)
    month.budget.look()
    with caplog.at_level(logging.INFO):
        assert [month.look(TOO_MUCH) for _ in range(8)] == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0]
    assert len(caplog.records) == 1
    assert "TEG_LINK_MB_PER_MONTH is 50" in caplog.text
    assert month.told == [{"link_over_budget": True}]
    assert LONGEST_GATHERING_S == 600.0


def test_within_the_budget_it_goes_back_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    month = Month(50, least_s=15.0)
    month.budget.look()
    month.look(TOO_MUCH, 8)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert month.look(LITTLE, 6 * 48) == 15.0
    assert [record.getMessage()[:20] for record in caplog.records] == ["the link keeps withi"]
    assert month.told == [{"link_over_budget": True}, {"link_over_budget": False}]


def test_a_window_that_is_set_longer_than_the_budgets_stays() -> None:
    month = Month(50, least_s=3000.0)
    month.budget.look()
    assert month.look(TOO_MUCH, 20) == 3000.0
    assert month.told == []


class ShutState(MemoryState):
    """Cannot be used now."""

    shut = True

    def get(self, key: str) -> Any:
        if self.shut:
            raise Unavailable("planted")
        return super().get(key)


def test_a_state_that_cannot_be_read_is_read_later_and_nothing_is_forgotten() -> None:
    month = Month(50)
    month.state = ShutState()
    month.budget = LinkBudget(LinkMeter(month.clock), month.state, month.clock, 50, 0.0)
    month.budget.meter.add(1000, 0)
    with pytest.raises(Unavailable):
        month.budget.look()
    month.budget.save()
    assert month.state.keys("") == []
    assert month.budget.due
    month.state.shut = False
    month.budget.look()
    month.look(5)
    assert used(month.budget.meter) == (1005, 0)
