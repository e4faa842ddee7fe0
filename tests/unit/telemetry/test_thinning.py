"""What of the archive goes where TEG_REPORT thins it: each strategy, mixed records, lateness, restarts, the account."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from teg.domain.errors import Unavailable
from teg.domain.telemetry import thinning
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.report_windows import OPEN
from teg.domain.telemetry.validation import Record
from tests.support.thinned import TS, ThinnedSite

MINUTE = 60_000


Opened = Callable[[Path, str], ThinnedSite]


@pytest.fixture
def site() -> Iterator[Opened]:
    with ExitStack() as stack:
        yield lambda path, rules: stack.enter_context(closing(ThinnedSite(path, rules)))


def every_second(first: int, last: int, **of: float) -> list[tuple[int, dict[str, float]]]:
    return [(TS + second * 1000, {key: scale * second for key, scale in of.items()}) for second in range(first, last)]


def test_without_rules_every_record_goes_and_nothing_is_written(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "")
    here.record(*every_second(0, 100, x=1))
    changes = here.archive.database.rows("SELECT total_changes()")
    assert not here.thinner.decide()
    assert here.archive.database.rows("SELECT total_changes()") == changes
    here.publish()
    assert here.told("x") == list(range(100))
    assert here.held == 0


def test_never_is_held_and_archived(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: never")
    here.record(*every_second(0, 1000, x=1))
    here.later()
    assert here.sent == []
    assert here.held == 1000
    assert len(here.archive.ids()) == 1000
    here.archive.assert_account()


@pytest.mark.parametrize(
    ("figure", "value"), [("last", [59, 119]), ("mean", [29.5, 89.5]), ("min", [0, 60]), ("max", [59, 119])]
)
def test_one_figure_of_a_window_keeps_the_key_and_the_last_records_time(
    site: Opened, tmp_path: Path, figure: str, value: list[float]
) -> None:
    here = site(tmp_path, f"x: {figure} every 60s")
    here.record(*every_second(0, 120, x=1))
    here.later()
    assert here.told("x") == value
    assert here.times("x") == [59_000, 119_000]
    assert here.held == 120
    here.archive.assert_account()


def test_several_figures_add_their_names(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: min mean max every 60s")
    here.record(*every_second(0, 60, x=2))
    here.later()
    assert here.sent == [(TS + 59_000, {"x_min": 0, "x_mean": 59.0, "x_max": 118})]


def test_a_change_beyond_the_band_goes_and_silence_has_an_end(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: change 0.5 every 10s")
    values = [1.0, 1.4, 1.5, 1.6, 1.2, 1.2, *[1.2] * 20]
    here.record(*((TS + second * 1000, {"x": value}) for second, value in enumerate(values)))
    here.publish()
    assert here.times("x") == [0, 3000, 13_000, 23_000]
    assert here.held == len(values) - 4


def test_a_relative_band_is_of_the_value_told_last(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: change 10%")
    here.record(*((TS + n, {"x": value}) for n, value in enumerate([100, 109, 111, 121, 123, 0, 0, 0.001, -5])))
    here.publish()
    assert here.told("x") == [100, 111, 123, 0, 0.001, -5]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["dry", "dry", "wet", "wet", "dry"], ["dry", "wet", "dry"]),
        ([True, True, False, False], [True, False]),
        ([1, True, "1", 1.0], [1, True, "1", 1.0]),
        ([None, None, 5, None], [None, 5, None]),
        ([{"a": 1}, {"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
        (["x" * 500, "x" * 500, "x" * 499 + "y"], ["x" * 500, "x" * 499 + "y"]),
    ],
)
def test_anything_can_change(site: Opened, tmp_path: Path, values: list[Any], told: list[Any]) -> None:
    here = site(tmp_path, "x: change")
    for number, value in enumerate(values):
        here.record((TS + number, {"x": value}))
        here.publish()
        here.restart()
    assert here.told("x") == told
    assert list(map(type, here.told("x"))) == list(map(type, told))


@pytest.mark.parametrize("value", ["text", True, {"a": 1}, [1]])
def test_what_has_no_mean_goes_as_it_is_and_is_said_once_a_key(
    site: Opened, tmp_path: Path, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    here = site(tmp_path, "*: mean every 60s")
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            here.record((TS + number, {"x": value, "y": number}))
            here.publish()
    assert here.told("x") == [value] * 5
    here.later()
    assert here.told("y") == [2.0]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["TEG_REPORT asks for the mean of 'x', whose value is no number: it is sent as it is. "
                    "Use last or change"]  # fmt: skip


def test_last_takes_any_value_and_passes_nulls_over(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "*: every 60s")
    values: list[dict[str, Any]] = [{"a": "x", "b": 1}, {"a": True, "b": None}, {"a": {"n": 1}, "b": None}]
    here.record(*((TS + number, each) for number, each in enumerate(values)))
    here.later()
    assert here.told("a") == [{"n": 1}]
    assert here.told("b") == [1]
    assert here.held == 3


def test_of_a_mixed_record_only_the_keys_that_go_are_sent(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "b: mean every 60s; c: never; d: change")
    here.record(*((TS + number, {"a": number, "b": number, "c": 0, "d": "same"}) for number in range(4)))
    here.later()
    *cut, window = here.sent
    assert window == (TS + 3, {"b": 1.5})
    assert cut == [(TS, {"a": 0, "d": "same"}), *((TS + number, {"a": number}) for number in range(1, 4))]
    assert here.held == 0
    counts = here.archive.counts()
    assert (counts["delivered"], counts["pending"]) == (4, 0)


def test_numbers_are_spelled_as_they_were_in_a_cut_record(site: Opened, tmp_path: Path) -> None:
    """By orjson 0.00001 would become 1e-5, and the server types what has an exponent in its own way."""
    here = site(tmp_path, "gone: never")
    text = f'{{"ts":{TS},"values":{{"a":0.00001,"gone":1,"b":1000000000000000000.0,"c":"Ä\\n"}}}}'
    here.archive.table.store([Record(1, TS, 4, text, None, False)], [], None)
    here.decide()
    ((_, points, _, sent),) = here.archive.table.pending(Stream.DATA, 0, 10, 1 << 20)
    assert points == 3
    assert sent.decode() == f'{{"ts":{TS},"values":{{"a":0.00001,"b":1000000000000000000.0,"c":"Ä\\n"}}}}'


def test_logs_of_the_controller_go_whatever_the_rules_say(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "*: never")
    here.record((TS, {"severity": "INFO", "message": "hello"}), log=True)
    here.publish()
    assert here.told("message") == ["hello"]
    assert here.held == 0


def test_a_window_closes_although_no_record_comes(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: mean every 60s")
    here.clock.ms = TS
    here.record((TS, {"x": 5}))
    here.publish()
    assert not here.thinner.due
    here.clock.advance(100)
    here.publish()
    here.clock.advance(19)
    assert not here.thinner.due
    assert here.told("x") == []
    here.clock.advance(1)
    assert here.thinner.due
    here.publish()
    assert here.told("x") == [5.0]
    assert not here.thinner.due


def test_records_from_a_clock_that_is_ahead_are_told_as_soon(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: mean every 60s")
    here.clock.ms = TS - 365 * 86_400_000
    here.record((TS, {"x": 5}))
    here.publish()
    here.clock.advance(119)
    here.publish()
    assert here.told("x") == []
    here.clock.advance(1)
    here.publish()
    assert here.told("x") == [5.0]


def test_what_comes_out_of_order_stays_in_its_window(site: Opened, tmp_path: Path) -> None:
    """Interleaved, as history beside what is measured now: as many windows as may be open."""
    here = site(tmp_path, "x: mean every 60s")
    starts = [n * 3600_000 for n in range(OPEN)]
    here.record(*((TS + starts[n % OPEN] + n * 10, {"x": n % OPEN}) for n in range(30 * OPEN)))
    here.later()
    assert here.told("x") == [float(n) for n in range(OPEN)]


def test_one_wild_time_stamp_does_not_end_the_thinning(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: mean every 60s")
    here.record((TS + 10**12, {"x": 1}), *every_second(0, 600, x=1))
    here.later()
    assert len(here.told("x")) == 11


def test_a_backlog_is_thinned_by_the_records_time(site: Opened, tmp_path: Path) -> None:
    """In one heap after an outage, over many reads of the outbox, the same as when it had come live."""
    here = site(tmp_path, "x: mean every 60s")
    here.record(*every_second(0, 12_000, x=1))
    here.later()
    assert here.told("x") == [60 * n + 29.5 for n in range(200)]
    assert here.held == 12_000


def test_a_backlog_that_comes_in_heaps_is_not_cut_at_their_ends(site: Opened, tmp_path: Path) -> None:
    """The recorder archives a thousand at a time, and between two of them there is nothing to decide."""
    here = site(tmp_path, "x: mean every 60s")
    for first in range(0, 600, 25):
        here.record(*every_second(first, first + 25, x=1))
        here.publish()
        here.clock.advance(1)
    here.later()
    assert here.told("x") == [60 * n + 29.5 for n in range(10)]


def test_held_records_leave_the_outbox_together(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: never")
    commits = []
    here.archive.database.committed = lambda: commits.append(1)
    for second in range(60):
        here.record(*every_second(second, second + 1, x=1))
        here.publish()
        here.clock.advance(1)
    here.later()
    assert here.held == 60
    assert len(commits) - 60 <= 8


def test_what_is_held_leaves_the_outbox_in_the_transaction_that_counts_it(site: Opened, tmp_path: Path) -> None:
    for fails in ("before", "after"):
        here = site(tmp_path / fails, "x: never; y: mean every 60s")
        here.record(*every_second(0, 700, x=1, y=1))
        here.store.fails = fails
        with pytest.raises(Unavailable):
            here.decide()
        here.archive.assert_account()
        here.later()
        here.archive.assert_account()
        assert here.held == 700
        assert here.told("y") == [60 * n + 29.5 for n in range(11)] + [679.5]


def test_a_window_survives_a_restart(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: mean every 60s; z: change")
    for second in range(180):
        here.record((TS + second * 1000, {"x": second, "y": 1, "z": 1}))
        here.publish()
        here.restart()
    here.later()
    assert here.told("x") == [29.5, 89.5, 149.5]
    assert len(here.told("y")) == 180
    assert here.times("z") == [0]
    assert here.archive.database.rows("SELECT key FROM report_key") == [("z",)]


@pytest.mark.parametrize("rules", ["", "x: never", "x: last every 10s", "y: never"])
def test_what_the_old_rules_had_begun_is_told_when_they_change(site: Opened, tmp_path: Path, rules: str) -> None:
    here = site(tmp_path, "x: mean every 60s")
    here.record(*every_second(0, 30, x=1))
    here.clock.ms = TS + 30_000
    here.publish()
    here.clock.advance(11)
    here.publish()
    assert (here.held, here.told("x")) == (30, [])
    here.restart(rules)
    here.publish()
    assert here.told("x") == [14.5]
    assert here.archive.database.rows("SELECT rules FROM report_position") == [(rules,)]


def test_keys_without_number_are_forgotten_by_sending_more_not_less(
    site: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thinning, "MAX_KEYS", 3)
    here = site(tmp_path, "*: mean every 60s")
    here.record(*((TS, {f"k{n}": n}) for n in range(10)))
    here.later()
    assert sorted(value for (_, _), value in here.server.items()) == [float(n) for n in range(10)]
    assert here.archive.database.rows("SELECT * FROM report_key") == []


def test_points_of_one_time_share_a_record(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "*: mean every 60s")
    here.record((TS, {f"k{n}": n for n in range(50)}))
    here.later()
    assert len(here.sent) == 1


def test_points_never_make_a_record_too_large(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "*: every 60s")
    here.record((TS, {"a": "x" * 40_000}), (TS, {"b": "x" * 40_000}))
    here.later()
    assert sorted(map(len, here.sent)) == [2, 2]
    assert len(here.server) == 2


def test_what_an_ended_connection_sends_again_is_cut_as_before(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "gone: never")
    here.archive.unproven.keeps_watermarks(True)
    here.record((TS, {"a": 1, "gone": 2}))
    here.publish()
    here.record((TS + 1, {"a": 1, "gone": 2}))
    here.decide()
    assert here.archive.table.connection_ended() == 1
    here.restart()
    here.publish()
    assert [values for _, values in here.sent] == [{"a": 1}] * 3
    here.archive.assert_account()


def test_what_was_cut_is_forgotten_when_it_is_proven(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "gone: never")
    here.archive.unproven.keeps_watermarks(True)
    for number in range(20):
        here.record((TS + number, {"a": 1, "gone": 2}))
        here.publish()
        here.archive.unproven.prove(here.archive.unproven.next_watermark().number)
    assert here.archive.database.rows("SELECT count(*) FROM chosen_keys")[0][0] <= 1


def test_a_clock_that_is_set_ends_the_open_windows_first(site: Opened, tmp_path: Path) -> None:
    here = site(tmp_path, "x: mean every 60s")
    here.record((TS, {"x": 5}))
    here.decide()
    here.thinner.close_all()
    here.send()
    assert here.told("x") == [5.0]
    here.record((TS + MINUTE, {"x": 6}))
    here.later()
    assert here.told("x") == [5.0, 6.0]
