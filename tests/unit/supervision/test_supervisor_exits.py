"""The supervisor over everything in memory: ends of the controller, its silence, and an engine in trouble."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.runtime import NameTaken, StartFailed
from teg.domain.supervision.supervisor import HISTORY_KEY, RETRY_S
from tests.support.controllers import RuntimeInMemory, Supervised

HOUR_S = 3600.0


# --- exits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        (lambda runtime: runtime.end(1), 1, "it crashed"),
        (lambda runtime: runtime.end(0), 0, "it ended by itself"),
        (lambda runtime: runtime.end(137, oom_killed=True), 137, "it was killed: out of memory"),
        (lambda runtime: runtime.vanish(), "", "its container was removed"),
    ],
)
def test_whatever_ends_it_it_runs_again_within_ten_seconds(
    around: Supervised, end: Callable[[RuntimeInMemory], None], code: object, reason: str
) -> None:
    around.look()
    end(around.runtime)
    around.look()
    assert around.report.current["controller_state"] == "waiting"
    assert around.report.current["controller_last_exit_code"] == code
    assert around.report.current["controller_last_exit_reason"] == reason
    around.look_until(10)
    assert around.runtime.calls == ["start v1", "start v1"]
    assert around.report.current["controller_state"] == "running"
    assert around.report.current["controller_restarts"] == 1


def test_an_exit_is_told_once_with_its_last_words(around: Supervised) -> None:
    around.look()
    around.runtime.output = [f"line {number}" for number in range(100)]
    around.runtime.end(3)
    around.look()
    around.look_until(HOUR_S)
    (told,) = [record for record in around.report.records if "controller_exit_log" in record]
    assert told["controller_exit_code"] == 3
    assert told["controller_exit_log"].splitlines() == [f"line {number}" for number in range(80, 100)]


def test_an_exit_that_could_not_be_told_is_told_later_also_after_a_restart_of_the_gateway(around: Supervised) -> None:
    around.look()
    around.runtime.end(3)
    around.report.broken = True
    with pytest.raises(Unavailable):
        around.look()
    around.report.broken = False
    around.again()
    around.look()
    assert [record["controller_exit_code"] for record in around.report.records if "controller_exit_code" in record] == [
        3
    ]


def test_an_exit_that_could_not_be_told_at_first_is_told_once(around: Supervised) -> None:
    around.look()
    around.runtime.end(3)
    around.report.broken = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            around.look()
    around.report.broken = False
    around.look()
    assert [record["controller_exit_code"] for record in around.report.records if "controller_exit_code" in record] == [
        3
    ]


def test_a_run_is_known_to_the_next_gateway_before_it_is_told(around: Supervised) -> None:
    """Killed between the two, the gateway would otherwise take the exit that follows for one of an earlier boot."""
    around.report.broken = True
    with pytest.raises(Unavailable):
        around.look()
    around.report.broken = False
    around.runtime.end(3)
    around.again()
    around.look()
    assert around.report.current["controller_last_exit_code"] == 3


def test_a_full_disk_does_not_keep_the_controller_down(around: Supervised) -> None:
    around.report.broken = around.state.broken = True
    with pytest.raises(Unavailable):
        around.look()
    assert around.runtime.seen.running
    around.runtime.end(1)
    for _ in range(3):
        around.clock.advance(5)
        with pytest.raises(Unavailable):
            around.look()
    assert around.runtime.seen.running


def test_a_crash_loop_backs_off_and_goes_on_backing_off_in_the_next_gateway(around: Supervised) -> None:
    around.runtime.images["v1"] = "exits"
    around.look_until(HOUR_S)
    starts = len(around.runtime.calls)
    assert 8 <= starts <= 11  # 0, 4, 14, 34, 74, 154, 314, 634, 1274, 2174, 3074 s
    around.again()
    around.look()
    assert len(around.runtime.calls) == starts
    around.look_until(900)
    assert len(around.runtime.calls) == starts + 1


def test_a_start_that_the_engine_refuses_backs_off_and_is_told(around: Supervised) -> None:
    around.runtime.start_failure = StartFailed("no such device /dev/i2c-1")
    around.look_until(60)
    assert len(around.runtime.calls) == 4  # 0, 4, 14, 34 s
    assert around.report.current["controller_state"] == "waiting"
    assert "no such device" in around.report.current["controller_last_exit_reason"]
    around.runtime.start_failure = None
    around.look_until(60)
    assert around.runtime.seen.running


def test_the_hosts_reboot_is_no_failure_and_needs_no_wait(around: Supervised) -> None:
    around.runtime.images["v1"] = "exits"
    around.look_until(600)
    around.runtime.images["v1"] = "runs"
    around.clock.reboot()
    around.again()
    around.look()
    assert around.runtime.seen.running


# --- health ------------------------------------------------------------------------------------------------------


def test_six_hours_without_a_heartbeat_restart_it_and_say_why(around: Supervised) -> None:
    around.look()
    around.look_until(6 * HOUR_S - 1)
    assert around.runtime.calls == ["start v1"]
    around.look_until(2)
    assert around.runtime.calls == ["start v1", "stop", "start v1"]
    assert {"controller_restart_reason": "no heartbeat for 6 h"} in around.report.records
    assert around.report.current["controller_restarts"] == 1
    assert not [record for record in around.report.records if "controller_exit_reason" in record]


def test_heartbeats_keep_it_running(around: Supervised) -> None:
    for hour in range(24):
        around.heartbeat.value_ms = hour
        around.look_until(HOUR_S)
    assert around.runtime.calls == ["start v1"]


def test_a_gateway_that_restarts_every_hour_still_notices_the_silence(around: Supervised) -> None:
    for _ in range(6):
        around.look_until(HOUR_S)
        around.again()
    around.look_until(60)
    assert around.runtime.calls == ["start v1", "stop", "start v1"]


def test_a_silence_behind_a_locked_inbox_is_noticed_too(around: Supervised) -> None:
    around.heartbeat.value_ms = 1
    around.look()
    around.heartbeat.locked = True
    around.look_until(6 * HOUR_S + 60)
    assert around.runtime.calls == ["start v1", "stop", "start v1"]


@pytest.mark.parametrize("hours", [-8, 8, 24 * 365 * 56])
def test_a_jumping_wall_clock_restarts_nothing_and_the_start_time_follows_it(around: Supervised, hours: int) -> None:
    around.look_until(100)
    age_ms = around.clock.wall_ms - (around.supervisor.running_since_ms() or 0)
    around.clock.wall_ms += hours * 3_600_000
    around.look_until(60)
    assert around.runtime.calls == ["start v1"]
    assert around.clock.wall_ms - (around.supervisor.running_since_ms() or 0) == age_ms + 60_000
    assert around.report.current["controller_running_since_ms"] == around.supervisor.running_since_ms()


def test_a_paused_controller_is_told_left_alone_and_in_the_end_restarted(around: Supervised) -> None:
    around.look()
    around.runtime.seen = replace(around.runtime.seen, paused=True)
    around.look_until(60)
    assert around.report.current["controller_state"] == "paused"
    around.look_until(900)
    assert around.runtime.calls == ["start v1", "stop", "start v1"]
    assert {"controller_restart_reason": "paused for 15 min"} in around.report.records


def test_heartbeats_alone_are_not_written_to_the_disk_each_time(around: Supervised) -> None:
    around.look()
    puts = len(around.state.writes)
    for beat in range(60):
        around.heartbeat.value_ms = beat
        around.look_until(60)
    assert 1 <= len(around.state.writes) - puts <= 6


def test_memory_is_told_every_ten_minutes(around: Supervised) -> None:
    around.look_until(HOUR_S)
    told = [record for record in around.report.records if "controller_memory_bytes" in record]
    assert 5 <= len(told) <= 7


# --- the engine's transient failures ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Unavailable, Refused])  # Refused: an engine too old or too new for us
def test_an_engine_that_is_away_is_told_once_and_asked_again_soon(
    around: Supervised, kind: type[Unavailable | Refused]
) -> None:
    around.look()
    around.runtime.failure = kind("Connection refused")
    around.look()
    assert around.report.current["controller_state"] == "engine unreachable"
    assert around.report.current["controller_state_reason"] == "Connection refused"
    assert around.supervisor.running_since_ms() is None
    assert around.supervisor.next_check.left_s() == RETRY_S
    told = around.report.attribute_calls
    around.look_until(HOUR_S)
    assert around.report.attribute_calls == told


def test_when_the_engine_is_back_the_controller_starts_at_once_whatever_the_back_off(around: Supervised) -> None:
    around.runtime.images["v1"] = "exits"
    around.look_until(1300)  # the wait is 15 minutes by now
    around.runtime.images["v1"] = "runs"
    around.runtime.failure = Unavailable("Connection refused")
    around.look()
    around.runtime.failure = None
    around.look()
    assert around.runtime.seen.running


def test_an_engine_that_breaks_off_in_the_start_counts_no_failure(around: Supervised) -> None:
    around.runtime.start_failure = Unavailable("answered 500")
    around.look_until(60)
    assert around.report.current["controller_state"] == "engine unreachable"
    around.runtime.start_failure = None
    around.look_until(RETRY_S)
    assert around.runtime.seen.running
    assert around.state.get(HISTORY_KEY)["failures"] == 0


def test_a_taken_name_is_told_and_converges_when_it_is_free(around: Supervised) -> None:
    around.runtime.failure = NameTaken("a container that is not ours is called teg_controller")
    around.look()
    assert around.report.current["controller_state"] == "name taken"
    assert around.runtime.calls == []
    around.runtime.failure = None
    around.look_until(60)
    assert around.runtime.seen.running
