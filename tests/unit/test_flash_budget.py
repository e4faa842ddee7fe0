"""What is written in a day, what a budget for it slows down, and within which bounds."""

import logging
import os
from pathlib import Path

import pytest

from teg.adapters.own_writes import OwnWrites
from teg.domain.flash_budget import LONGEST_COMMIT_S, MB, FlashBudget
from teg.domain.telemetry.ingest import BATCH_ROWS, CommitPace
from tests.support.links import FakeClock


class Card:
    def __init__(self, megabytes: int | None, disk_bytes: int = 32_000_000_000) -> None:
        self.written: int | None = 5_000_000
        self.clock = FakeClock()
        self.budget = FlashBudget(lambda: self.written, lambda: disk_bytes, self.clock, megabytes)

    def look(self, per_day: float, times: int = 1) -> float:
        for _ in range(times):
            if self.written is not None:
                self.written += round(per_day / 144)
            self.clock.advance(600)
            assert self.budget.due
            self.budget.look()
        return self.budget.commit_s


def test_the_rate_of_the_last_hour_is_told_from_ten_minutes_on() -> None:
    card = Card(None)
    assert card.budget.summary()["per_day_bytes"] is None
    card.look(144 * MB)
    assert card.budget.summary()["per_day_bytes"] == 144 * MB
    card.look(14.4 * MB, 6)
    assert card.budget.summary()["per_day_bytes"] == round(14.4 * MB)


def test_a_look_too_early_says_nothing() -> None:
    """The other budget is looked at by the same task, seconds after the start."""
    card = Card(20)
    assert card.written is not None
    card.written += 100 * MB
    card.clock.advance(3)
    card.budget.look()
    assert card.budget.summary()["per_day_bytes"] is None
    assert card.budget.commit_s == 0.0


def test_the_life_of_a_card_is_of_its_size_and_the_rate() -> None:
    card = Card(None)
    card.look(100 * MB)
    assert card.budget.summary()["card_years"] == round(32_000_000_000 * 500 / 4 / (100 * MB) / 365, 1)
    idle = Card(None)
    idle.look(0)
    assert idle.budget.summary()["card_years"] is None


def test_without_a_budget_nothing_waits() -> None:
    assert Card(None).look(10_000 * MB, 20) == 0.0


def test_beyond_the_budget_commits_are_shared_within_a_bound_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    card = Card(20)
    with caplog.at_level(logging.INFO):
        assert [card.look(100 * MB) for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
        assert len(caplog.records) == 1
        assert card.look(15 * MB, 10) == LONGEST_COMMIT_S  # half as long could be twice as much
        assert card.look(5 * MB, 12) == 0.0
    assert [record.getMessage()[:25] for record in caplog.records] == [
        "the gateway writes 100.0 ",
        "the gateway writes less t",
    ]


def test_where_the_kernel_does_not_tell_nothing_is_made_up() -> None:
    card = Card(20)
    card.written = None
    assert card.look(100 * MB, 3) == 0.0
    assert card.budget.summary()["per_day_bytes"] is None


def test_the_budget_widens_the_pace_of_a_trickle_and_never_of_a_backlog() -> None:
    card = Card(20)
    pace = CommitPace(lambda: card.budget.commit_s)
    assert pace.pause_s(1, 0.0) == 0.0
    card.look(100 * MB, 8)
    assert pace.pause_s(1, 100.0) == LONGEST_COMMIT_S
    assert pace.pause_s(BATCH_ROWS, 101.0) == 0.0


def test_what_this_process_writes_is_seen(tmp_path: Path) -> None:
    writes = OwnWrites()
    before = writes.written_bytes()
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
    after = writes.written_bytes()
    if before is None or after is None:
        pytest.skip("this kernel does not count")
    assert after - before >= 1 << 20


def proc(root: Path, pid: str, written: int, taken_back: int = 0, children: str = "") -> None:
    (root / pid / "task" / pid).mkdir(parents=True, exist_ok=True)
    (root / pid / "io").write_text(f"rchar: 1\nwrite_bytes: {written}\ncancelled_write_bytes: {taken_back}\n")
    (root / pid / "task" / pid / "children").write_text(children)


def test_a_child_counts_and_one_that_has_ended_stays_counted(tmp_path: Path) -> None:
    own, writes = str(os.getpid()), OwnWrites(tmp_path)
    assert writes.written_bytes() is None
    proc(tmp_path, own, 1000, 100, "77 78 ")
    proc(tmp_path, "77", 50)
    assert writes.written_bytes() == 950
    proc(tmp_path, own, 2000, 100)
    assert writes.written_bytes() == 1950
