"""The decisions about the controller, as tables: what was seen and remembered in, what to do out."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.supervision.policy import (
    FIRST_RESTART_S,
    PAUSED_LIMIT_S,
    SLOW_LOOK_S,
    STABLE_S,
    Action,
    Decision,
    History,
    Moment,
    Rules,
    account,
    encode_history,
    exit_reason,
    failed,
    parse_history,
    plan,
    restart_wait_s,
)
from teg.domain.supervision.runtime import ABSENT, Observation

HOUR_S = 3600.0
RULES = Rules(health_limit_s=6 * HOUR_S, start_grace_s=60, profile="P")
RUNNING = Observation(exists=True, running=True, run_id="r1", version="v1", profile="P", started_ms=1)
EXITED = replace(RUNNING, running=False, exit_code=1)
CREATED = Observation(exists=True, run_id="r0@", version="v1", profile="P")  # the gateway was killed before the start
REFERENCE = Observation(
    exists=True, running=True, run_id="r1", image="teg-controller-v1:latest", started_ms=1
)  # of the reference gateway: no label


def at(seconds: float, boot: str = "b1", wall_ms: int = 1_767_225_600_000, spread: float = 1.0) -> Moment:
    return Moment(monotonic_s=seconds, wall_ms=wall_ms, boot_id=boot, spread=spread)


def running_since(seconds: float, **more: Any) -> History:
    return History(boot_id="b1", run_id="r1", run_since_s=seconds, runs=1, **more)


# --- plan ------------------------------------------------------------------------------------------------------

START, RESTART, NOTHING = Action.START, Action.RESTART, Action.NOTHING


@pytest.mark.parametrize(
    ("seen", "wanted", "trial", "action", "reason"),
    [
        (ABSENT, None, None, NOTHING, "no controller version is known"),
        (RUNNING, None, None, NOTHING, "no controller version is known"),
        (ABSENT, "v1", None, START, "not running"),
        (EXITED, "v1", None, START, "not running"),
        (CREATED, "v1", None, START, "not running"),
        (RUNNING, "v1", None, NOTHING, "running"),
        (RUNNING, "v2", None, RESTART, "it runs version v1, v2 is wanted"),
        (RUNNING, "v0", "v1", NOTHING, "running"),  # an update tries v1 out: leave it alone
        (RUNNING, "v0", "v2", RESTART, "it runs version v1, v0 is wanted"),
        (replace(RUNNING, profile="Q"), "v1", None, RESTART, "settings"),
        (REFERENCE, "v1", None, RESTART, "taken over"),
        (REFERENCE, "v2", None, RESTART, "it runs version teg-controller-v1:latest, v2 is wanted"),
        (replace(RUNNING, version="v1.10"), "v1.1", None, RESTART, "v1.10"),  # compared whole, never parsed
    ],
)
def test_what_runs_against_what_is_wanted(
    seen: Observation, wanted: str | None, trial: str | None, action: Action, reason: str
) -> None:
    history = running_since(100) if seen.running else History(boot_id="b1")
    decision = plan(at(150), seen, history, wanted, RULES, trial)
    assert decision.action is action
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("now_s", "alive_s", "action"),
    [
        (100 + 6 * HOUR_S - 1, None, NOTHING),
        (100 + 6 * HOUR_S, None, RESTART),  # since the start
        (100 + 6 * HOUR_S, 100.0 + 60, NOTHING),  # since the last heartbeat, which is later
        (160 + 6 * HOUR_S - 1, 160.0, NOTHING),
        (160 + 6 * HOUR_S, 160.0, RESTART),
    ],
)
def test_six_hours_of_silence(now_s: float, alive_s: float | None, action: Action) -> None:
    decision = plan(at(now_s), RUNNING, running_since(100, alive_s=alive_s), "v1", RULES)
    assert decision.action is action
    assert (decision.reason == "no heartbeat for 6 h") == (action is RESTART)


@pytest.mark.parametrize(
    ("age_s", "alive_s", "action"),
    [(29.9, None, NOTHING), (59.9, None, NOTHING), (60, None, RESTART), (29.9, 100.0, NOTHING), (30, 100.0, RESTART)],
)
def test_a_short_limit_leaves_time_to_start_but_not_to_fall_silent(
    age_s: float, alive_s: float | None, action: Action
) -> None:
    rules = replace(RULES, health_limit_s=30, start_grace_s=60)
    assert plan(at(100 + age_s), RUNNING, running_since(100, alive_s=alive_s), "v1", rules).action is action


@pytest.mark.parametrize(
    ("paused_s", "action"), [(0, NOTHING), (PAUSED_LIMIT_S - 1, NOTHING), (PAUSED_LIMIT_S, RESTART)]
)
def test_a_pause_is_respected_for_a_while(paused_s: float, action: Action) -> None:
    seen = replace(RUNNING, paused=True)
    decision = plan(at(500 + paused_s), seen, running_since(100, paused_since_s=500.0), "v1", RULES)
    assert decision.action is action
    assert decision.reason == ("paused for 15 min" if action is RESTART else "paused")


@pytest.mark.parametrize(
    ("history", "look_again_s"),
    [
        (running_since(100), SLOW_LOOK_S),
        (running_since(150 - 6 * HOUR_S + 7), 7),
        (replace(running_since(100), paused_since_s=150 - PAUSED_LIMIT_S + 5), 5),
    ],
)
def test_the_next_look_comes_when_the_decision_can_change(history: History, look_again_s: float) -> None:
    seen = replace(RUNNING, paused=history.paused_since_s is not None)
    assert plan(at(150), seen, history, "v1", RULES).look_again_s == look_again_s


# --- exits and waits ---------------------------------------------------------------------------------------------


def test_the_first_restart_comes_within_ten_seconds() -> None:
    history = account(at(200), EXITED, None, running_since(100))
    decision = plan(at(200), EXITED, history, "v1", RULES)
    assert decision == Decision(NOTHING, "starts again soon: it crashed", FIRST_RESTART_S)
    assert FIRST_RESTART_S < 10
    assert plan(at(200 + FIRST_RESTART_S), EXITED, history, "v1", RULES).action is START


def test_waits_grow_to_a_quarter_of_an_hour_and_no_further() -> None:
    assert [restart_wait_s(n) for n in range(1, 12)] == [4, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900]
    assert restart_wait_s(10_000) == 900


def test_waits_are_spread_but_never_longer() -> None:
    assert failed(at(100, spread=0.5), "x", 1, History(failures=3)).due_s == 100 + 20
    assert failed(at(100, spread=1.0), "x", 1, History(failures=3)).due_s == 100 + 40


def crash_again(now_s: float, history: History, run_s: float, run: int) -> History:
    running = replace(RUNNING, run_id=f"r{run}")
    history = account(at(now_s), running, None, history)
    return account(at(now_s + run_s), replace(running, running=False, exit_code=1), None, history)


def test_crashes_in_a_row_wait_longer_and_longer() -> None:
    history, now_s, waits = History(boot_id="b1"), 100.0, []
    for run in range(1, 6):
        history = crash_again(now_s, history, 2, run)
        assert history.due_s is not None
        waits.append(history.due_s - (now_s + 2))
        now_s = history.due_s
    assert waits == [4, 10, 20, 40, 80]
    assert history.failures == 5 and history.runs == 5 and history.restarts == 4


def test_a_stable_run_clears_the_failures() -> None:
    history = crash_again(100, History(boot_id="b1", failures=7), STABLE_S, 1)
    assert history.failures == 1
    assert history.due_s == 100 + STABLE_S + FIRST_RESTART_S
    again = account(at(2000), replace(RUNNING, run_id="r2"), None, replace(history, failures=5))
    assert account(at(2000 + STABLE_S - 1), replace(RUNNING, run_id="r2"), None, again).failures == 5
    assert account(at(2000 + STABLE_S), replace(RUNNING, run_id="r2"), None, again).failures == 0


def test_an_exit_counts_once_however_often_it_is_seen() -> None:
    once = account(at(200), EXITED, None, running_since(100))
    assert account(at(201), EXITED, None, once) == once
    assert account(at(900), EXITED, None, once) == once


def test_a_removed_container_counts_as_an_exit() -> None:
    history = account(at(200), ABSENT, None, running_since(100))
    assert history.failures == 1
    assert history.exit_reason == "its container was removed" and history.exit_code is None
    assert account(at(201), ABSENT, None, history) == history
    assert plan(at(204), ABSENT, history, "v1", RULES).action is START


def test_a_run_so_short_that_nobody_saw_it_counts() -> None:
    before = account(at(200), EXITED, None, running_since(100))
    unseen = account(at(210), replace(EXITED, run_id="r2"), None, before)
    assert unseen.failures == 2 and unseen.ended_run_id == "r2"


def test_a_container_that_was_created_but_never_started_is_no_exit() -> None:
    history = account(at(200), CREATED, None, History(boot_id="b1"))
    assert history.failures == 0
    assert plan(at(200), CREATED, history, "v1", RULES).action is START


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (ABSENT, "its container was removed"),
        (replace(EXITED, exit_code=0), "it ended by itself"),
        (replace(EXITED, exit_code=1), "it crashed"),
        (replace(EXITED, exit_code=137), "it was killed"),
        (replace(EXITED, exit_code=137, oom_killed=True), "it was killed: out of memory"),
        (replace(EXITED, exit_code=143), "it was stopped"),
        (replace(EXITED, exit_code=127, error="no such device"), "no such device"),
        (replace(EXITED, exit_code=None), "it ended"),
    ],
)
def test_reasons_in_plain_words(seen: Observation, reason: str) -> None:
    assert exit_reason(seen) == reason


# --- boots, clocks, heartbeats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [EXITED, ABSENT, CREATED])
def test_after_a_boot_it_starts_at_once_and_nothing_is_counted(seen: Observation) -> None:
    before = failed(at(90_000), "it crashed", 1, running_since(89_000, failures=6))
    history = account(at(20, boot="b2"), seen, None, before)
    assert history.failures == before.failures
    assert plan(at(20, boot="b2"), seen, history, "v1", RULES).action is START
    later = account(at(25, boot="b2"), seen, None, history)
    assert later.failures == before.failures and plan(at(25, boot="b2"), seen, later, "v1", RULES).action is START


def test_back_off_goes_on_after_a_crash_loop_and_a_boot() -> None:
    before = replace(running_since(89_000), failures=6)
    history = account(at(20, boot="b2"), EXITED, None, before)
    assert crash_again(30, history, 2, 2).due_s == 32 + restart_wait_s(7)


def test_a_run_found_after_a_boot_starts_a_new_silence() -> None:
    before = running_since(89_000, alive_s=95_000.0, heartbeat_ms=5)
    history = account(at(30, boot="b2"), replace(RUNNING, run_id="r2"), 5, before)
    assert plan(at(31 + 6 * HOUR_S - 2, boot="b2"), RUNNING, history, "v1", RULES).action is NOTHING
    assert plan(at(30 + 6 * HOUR_S, boot="b2"), RUNNING, history, "v1", RULES).action is RESTART


YEAR_MS = 365 * 86_400_000


@pytest.mark.parametrize("jump_ms", [56 * YEAR_MS, -56 * YEAR_MS, 7 * 3_600_000, -7 * 3_600_000])
def test_a_wall_clock_that_jumps_neither_triggers_nor_hides_the_silence(jump_ms: int) -> None:
    wall_ms = 1_767_225_600_000
    history = account(at(100, wall_ms=wall_ms), RUNNING, wall_ms - 5000, History(boot_id="b1"))
    history = account(at(160, wall_ms=wall_ms), RUNNING, wall_ms, history)
    after = at(220, wall_ms=wall_ms + jump_ms)
    history = account(after, RUNNING, wall_ms, history)
    assert plan(after, RUNNING, history, "v1", RULES).action is NOTHING
    late = at(160 + 6 * HOUR_S, wall_ms=wall_ms + jump_ms)
    assert plan(late, RUNNING, account(late, RUNNING, wall_ms, history), "v1", RULES).action is RESTART


def test_every_change_of_the_heartbeat_is_life_also_backwards() -> None:
    history = account(at(100), RUNNING, 9_000, History(boot_id="b1"))
    assert history.alive_s is None  # it was there before this run
    assert account(at(200), RUNNING, 9_000, history).alive_s is None
    assert account(at(200), RUNNING, 3_000, history).alive_s == 200


def test_an_inbox_that_cannot_be_read_neither_counts_as_life_nor_as_silence_from_zero() -> None:
    history = account(at(200), RUNNING, 2_000, account(at(100), RUNNING, 1_000, History(boot_id="b1")))
    locked = account(at(300), RUNNING, None, history)
    assert locked.alive_s == 200 and locked.heartbeat_ms == 2_000
    assert plan(at(200 + 6 * HOUR_S), RUNNING, locked, "v1", RULES).action is RESTART


@pytest.mark.parametrize(
    ("started_ago_ms", "age_ms"),
    [(50_000, 50_000), (0, 0), (200_000, 0), (-10_000, 0), (56 * YEAR_MS, 0)],  # at 100 s after the boot
)
def test_the_age_of_a_found_run_is_believed_only_if_possible(started_ago_ms: int, age_ms: int) -> None:
    now = at(100)
    seen = replace(RUNNING, started_ms=now.wall_ms - started_ago_ms)
    assert account(now, seen, None, History()).run_age_ms == age_ms


def test_a_pause_is_noted_and_forgotten() -> None:
    history = account(at(200), replace(RUNNING, paused=True), None, running_since(100))
    assert history.paused_since_s == 200
    assert account(at(300), replace(RUNNING, paused=True), None, history).paused_since_s == 200
    assert account(at(300), RUNNING, None, history).paused_since_s is None


# --- what is stored ----------------------------------------------------------------------------------------------


def test_the_history_survives_being_stored() -> None:
    history = failed(at(123.5), "it crashed", 3, running_since(7.25, alive_s=8.5, heartbeat_ms=9, paused_since_s=1.0))
    assert parse_history(encode_history(history)) == history


@pytest.mark.parametrize("stored", [None, [], "x", 7, {}])
def test_nothing_stored_is_an_empty_history(stored: Any) -> None:
    assert parse_history(stored) == History()


@pytest.mark.parametrize(
    ("name", "value"),
    [("failures", "3"), ("failures", True), ("due_s", "soon"), ("run_id", 5), ("alive_s", True), ("boot_id", None)],
)
def test_a_wrong_field_is_left_out_and_the_others_stay(name: str, value: Any) -> None:
    stored = encode_history(running_since(7.0, failures=2, alive_s=8.0)) | {name: value, "of_another_version": 1}
    parsed = parse_history(stored)
    assert getattr(parsed, name) == getattr(History(), name)
    assert parsed.run_since_s == 7.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
)


@given(st.dictionaries(st.sampled_from(list(encode_history(History()))), JSON))
def test_whatever_is_stored_can_be_planned_with(stored: dict[str, Any]) -> None:
    history = account(at(100), EXITED, None, parse_history(stored))
    assert plan(at(100), EXITED, history, "v1", RULES).look_again_s <= SLOW_LOOK_S


SEEN = st.sampled_from(
    [ABSENT, EXITED, CREATED, RUNNING, replace(RUNNING, paused=True), replace(RUNNING, run_id="r2"), REFERENCE]
)


@given(st.lists(st.tuples(st.floats(0, 3000), SEEN, st.none() | st.integers(0, 5)), max_size=30))
def test_whatever_is_seen_a_controller_that_is_down_is_started_within_a_quarter_of_an_hour(
    looks: list[tuple[float, Observation, int | None]],
) -> None:
    history, now_s = History(boot_id="b1"), 100.0
    for passed_s, seen, heartbeat_ms in looks:
        now_s += passed_s
        history = account(at(now_s), seen, heartbeat_ms, history)
        decision = plan(at(now_s), seen, history, "v1", RULES)
        assert 0 <= decision.look_again_s <= SLOW_LOOK_S
        assert decision.action is not START or not seen.running
        if not seen.running:
            late = at(now_s + 900)
            assert plan(late, seen, account(late, seen, None, history), "v1", RULES).action is START
