"""The supervisor over everything in memory: what it starts, what it tells, what it never does."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from producers import controller_watch
from producers.controller_watch import ControllerWatch
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.container_profile import Device, Rights
from teg.domain.supervision.next_check import NextCheck
from teg.domain.supervision.runtime import MountRefused, NameTaken, Observation, StartFailed
from teg.domain.supervision.supervisor import HISTORY_KEY, RETRY_S, NoController
from tests.support.controllers import RuntimeInMemory, Supervised
from tests.support.running import wait_until

HOUR_S = 3600.0


@pytest.fixture
def around(tmp_path: Path) -> Supervised:
    return Supervised(tmp_path)


# --- starting ----------------------------------------------------------------------------------------------------


def test_a_cold_start_runs_the_default_version(around: Supervised) -> None:
    around.look()
    assert around.runtime.calls == ["start v1"]
    assert around.report.current["controller_state"] == "running"
    assert around.report.current["controller_version"] == "v1"
    assert around.report.current["controller_restarts"] == 0


def test_looking_again_changes_and_tells_nothing(around: Supervised) -> None:
    around.look()
    calls, told, puts = list(around.runtime.calls), around.report.attribute_calls, len(around.state.writes)
    around.look_until(HOUR_S)
    assert around.runtime.calls == calls
    assert (around.report.attribute_calls, len(around.state.writes)) == (told, puts)


def test_the_reference_gateways_version_file_is_taken_over(around: Supervised) -> None:
    around.version_file.write_text("v2")
    around.look()
    assert around.runtime.calls == ["start v2"]


@pytest.mark.parametrize("content", ["", "v1; rm -rf /", "a\nb", "UNKNOWN VERSION", "x" * 200, "-h"])
def test_a_version_file_with_something_else_in_it_is_not_believed(around: Supervised, content: str) -> None:
    around.version_file.write_text(content)
    assert around.supervisor.version() == "v1"


def test_a_committed_version_wins_and_is_written_where_scripts_look_for_it(around: Supervised) -> None:
    around.version_file.write_text("v1")
    around.supervisor.commit_version("v2")
    assert around.version_file.read_text() == "v2"
    around.version_file.write_text("v1")  # an old script wrote it: the state is the truth
    around.again()
    around.look()
    assert around.runtime.calls == ["start v2"]


def test_a_version_file_that_cannot_be_written_is_said_after_the_commit(around: Supervised) -> None:
    around.version_file.mkdir()
    with pytest.raises(Unavailable, match="last_launched"):
        around.supervisor.commit_version("v2")
    assert around.supervisor.version() == "v2"


def test_without_any_version_it_says_so(tmp_path: Path) -> None:
    around = Supervised(tmp_path, default_version=None)
    around.look()
    assert around.runtime.calls == []
    assert around.report.current["controller_state"] == "no version"


def test_a_missing_image_is_reported_and_started_once_it_is_there(tmp_path: Path) -> None:
    around = Supervised(tmp_path, runtime=RuntimeInMemory())
    around.look()
    assert around.report.current["controller_state"] == "image missing"
    around.runtime.images["v1"] = "runs"
    around.look_until(60)
    assert around.report.current["controller_state"] == "running"


def test_a_container_of_the_reference_gateway_is_replaced_once(around: Supervised) -> None:
    around.runtime.seen = Observation(
        exists=True, running=True, run_id="r", image="teg-controller-v1:latest", started_ms=1
    )
    around.look()
    around.look_until(HOUR_S)
    assert around.runtime.calls == ["stop", "start v1"]
    assert {"controller_restart_reason": "taken over from the previous gateway"} in around.report.records


def test_a_container_of_the_reference_gateway_is_left_running_while_its_image_is_missing(tmp_path: Path) -> None:
    around = Supervised(tmp_path, runtime=RuntimeInMemory())
    around.runtime.seen = Observation(
        exists=True, running=True, run_id="r", image="teg-controller-v1:latest", started_ms=1
    )
    around.look_until(HOUR_S)
    assert around.runtime.calls == []
    assert around.report.current["controller_state"] == "running"
    assert "no image of v1" in around.report.current["controller_state_reason"]


RIGHTS = Rights(privileged=True, host_network=True, devices=(Device("/dev/i2c-1", "/dev/i2c-1", "rwm"),))
FORMER = Observation(
    exists=True, running=True, run_id="r", image="teg-controller-v1:latest", started_ms=1, rights=RIGHTS
)


def test_the_rights_of_the_reference_gateways_container_are_kept_and_said(
    around: Supervised, caplog: pytest.LogCaptureFixture
) -> None:
    """A controller that was privileged might only crash without: it must not be replaced by one that does."""
    around.runtime.seen = FORMER
    around.look()
    assert around.runtime.loosened == [RIGHTS]
    assert around.runtime.calls == ["stop", "start v1"]
    assert around.runtime.seen.profile == around.runtime.profile() != "profile-1"
    assert "all rights (privileged), the host's network, devices /dev/i2c-1" in caplog.text


def test_kept_rights_hold_for_the_next_life_of_the_gateway(around: Supervised) -> None:
    around.runtime.seen = FORMER
    around.look()
    around.runtime.forget()
    around.again()
    around.look_until(HOUR_S)
    assert around.runtime.loosened == [RIGHTS]
    assert around.runtime.calls == ["stop", "start v1"], "not restarted for it"


def test_an_update_before_the_first_look_keeps_them_too(around: Supervised) -> None:
    around.runtime.seen = FORMER
    with around.supervisor.exclusive("ota"):
        assert around.runtime.loosened == [RIGHTS]


def test_a_container_of_our_own_is_not_loosened(around: Supervised) -> None:
    around.look_until(HOUR_S)
    assert around.runtime.loosened == []


def test_a_refused_mount_is_told_and_leaves_what_runs_alone(around: Supervised) -> None:
    around.look()
    around.runtime.mount_failure = MountRefused("/x lies in /y")
    around.runtime.seen = replace(around.runtime.seen, profile="settings of before")
    around.look_until(HOUR_S)
    assert around.runtime.calls == ["start v1"]
    assert around.report.current["controller_state"] == "running"
    assert around.report.current["controller_state_reason"] == "/x lies in /y"


def test_a_refused_mount_is_no_crash(around: Supervised) -> None:
    around.runtime.mount_failure = MountRefused("/x lies in /y")
    around.look_until(HOUR_S)
    assert around.report.current["controller_state"] == "mount refused"
    assert around.report.records == []
    around.runtime.mount_failure = None
    around.look_until(2 * RETRY_S)
    assert around.report.current["controller_state"] == "running"


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


# --- the engine's weather ----------------------------------------------------------------------------------------


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


# --- asked for ---------------------------------------------------------------------------------------------------


def test_a_restart_that_was_asked_for_is_immediate_and_no_failure(around: Supervised) -> None:
    around.look()
    around.supervisor.restart("RPC")
    assert around.runtime.calls == ["start v1", "stop", "start v1"]
    assert around.report.current["controller_state"] == "running"
    assert around.report.current["controller_last_exit_reason"] == ""
    assert around.state.get(HISTORY_KEY)["failures"] == 0


def test_a_restart_does_not_wait_for_the_back_off(around: Supervised) -> None:
    around.runtime.images["v1"] = "exits"
    around.look_until(600)
    around.runtime.images["v1"] = "runs"
    around.supervisor.restart("RPC")
    assert around.runtime.seen.running


def test_a_restart_never_stops_what_cannot_start_again(around: Supervised) -> None:
    around.look()
    del around.runtime.images["v2"]
    around.supervisor.commit_version("v2")
    with pytest.raises(Unavailable, match="v2"):
        around.supervisor.restart("RPC")
    assert around.runtime.seen.runs("v1")


def test_a_restart_without_any_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no controller version"):
        Supervised(tmp_path, default_version=None).supervisor.restart("RPC")


def test_a_restart_while_the_engine_is_away_says_so(around: Supervised) -> None:
    around.look()
    around.runtime.failure = Unavailable("Connection refused")
    with pytest.raises(Unavailable):
        around.supervisor.restart("RPC")


# --- updates -----------------------------------------------------------------------------------------------------


def test_while_an_update_holds_the_container_nothing_here_touches_it(around: Supervised) -> None:
    around.look()
    with around.supervisor.exclusive("ota"):
        around.runtime.stop()
        around.look_until(600)
        assert around.runtime.calls == ["start v1", "stop"]
        with pytest.raises(Unavailable, match="ota"), around.supervisor.exclusive("files", wait_s=0):
            pass
    assert around.supervisor.next_check.left_s() == 0
    around.look_until(10)
    assert around.runtime.seen.runs("v1")


def test_the_version_that_an_update_tries_out_is_seen_at_once(around: Supervised) -> None:
    around.look_until(600)
    with around.supervisor.exclusive("ota"):
        around.supervisor.note_trial("v2")
        around.runtime.start("v2")
        around.look()
        assert around.supervisor.summary()["controller_version"] == "v2"
        assert around.supervisor.running_since_ms() == around.clock.wall_ms


def test_a_trial_may_run_until_it_is_over(around: Supervised) -> None:
    around.supervisor.note_trial("v2")
    around.runtime.start("v2")
    around.look_until(HOUR_S)
    assert around.runtime.seen.runs("v2")
    around.supervisor.note_trial(None)
    around.look_until(60)
    assert around.runtime.seen.runs("v1")


def test_a_trial_that_nobody_watches_any_more_falls_back_to_the_committed_version(around: Supervised) -> None:
    """The gateway was killed in the middle of an update, and the new version crashed."""
    around.supervisor.note_trial("v2")
    around.runtime.start("v2")
    around.look()
    around.runtime.end(1)
    around.again()
    around.look_until(10)
    assert around.runtime.seen.runs("v1")


def test_a_commit_ends_the_trial_without_a_restart(around: Supervised) -> None:
    around.look()
    with around.supervisor.exclusive("ota"):
        around.supervisor.note_trial("v2")
        around.runtime.start("v2")
        around.supervisor.commit_version("v2")
    calls = list(around.runtime.calls)
    around.look_until(HOUR_S)
    assert around.runtime.calls == calls
    assert around.runtime.seen.runs("v2")


def test_the_container_is_released_when_an_update_fails(around: Supervised) -> None:
    with pytest.raises(ZeroDivisionError), around.supervisor.exclusive("ota"):
        raise ZeroDivisionError
    around.look()
    assert around.runtime.seen.running


# --- the planned look, threads, none -------------------------------------------------------------------------------


def test_the_wait_for_the_next_look_ends_when_it_is_planned_earlier(around: Supervised) -> None:
    next_check = around.supervisor.next_check
    assert next_check.wait(0)
    assert not next_check.wait(0)
    taken: list[bool] = []
    waiting = threading.Thread(target=lambda: taken.append(next_check.wait(60)))
    waiting.start()
    next_check.plan_in(0)
    waiting.join(10)
    assert taken == [True]


def test_two_looks_at_once_do_not_act_twice(around: Supervised) -> None:
    entered, go_on = threading.Event(), threading.Event()
    start = around.runtime.start

    def slow_start(version: str) -> None:
        entered.set()
        assert go_on.wait(10)
        start(version)

    around.runtime.start = slow_start  # type: ignore[method-assign]
    first = threading.Thread(target=around.look)
    first.start()
    assert entered.wait(10)
    around.look()
    go_on.set()
    first.join(10)
    assert around.runtime.calls == ["start v1"]


def test_logs_are_the_runtimes(around: Supervised) -> None:
    around.look()
    assert around.supervisor.logs(5) == ["hello v1"]


def test_nothing_to_supervise(caplog: pytest.LogCaptureFixture) -> None:
    nothing = NoController()
    nothing.supervise()
    assert nothing.running_since_ms() is None
    assert nothing.summary() == {"controller_state": "not supervised"}
    for call in (lambda: nothing.restart("x"), lambda: nothing.logs(1)):
        with pytest.raises(Refused, match="TEG_CONTROLLER_RUNTIME=none"):
            call()


def test_a_long_outage_is_logged_once(around: Supervised, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    around.runtime.failure = Unavailable("Connection refused")
    around.look_until(HOUR_S)
    assert len(caplog.records) == 1


class Changes:
    """What the engine tells, one after the other; then nothing for ever."""

    def __init__(self, *told: bool | Exception) -> None:
        self._told = list(told)
        self.asked = 0

    def wait_for_change(self, timeout_s: float) -> bool:
        self.asked += 1
        if not self._told:
            return threading.Event().wait(0.02)
        found = self._told.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


class Plans:
    """Nothing is ever planned; a wait for it takes `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s

    def wait(self, timeout_s: float) -> bool:
        return threading.Event().wait(self._wait_s)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRY_S", "COALESCE_S"):
        monkeypatch.setattr(controller_watch, name, 0.01)


def watched(changes: Changes, plans: Plans | NextCheck, looks: int) -> None:
    """Watch until there were `looks` looks."""
    seen: list[int] = []
    watch = ControllerWatch(changes, plans, lambda: seen.append(1))
    watch.start()
    try:
        wait_until(lambda: len(seen) >= looks, 10, f"{looks} looks")
    finally:
        watch.stop()


def test_the_watch_looks_after_every_change(quick: None) -> None:
    watched(Changes(True, False, True, False), Plans(60), looks=2)


def test_the_watch_looks_when_a_plan_is_due(around: Supervised, quick: None) -> None:
    watched(Changes(), around.supervisor.next_check, looks=1)


def test_the_watch_looks_although_nothing_is_planned(quick: None) -> None:
    """A queued task may be lost with the queue's file: that must not have been the last look."""
    watched(Changes(), Plans(0.02), looks=4)


def test_the_watch_looks_once_when_the_engine_goes(quick: None) -> None:
    changes, seen = Changes(*[Unavailable("no engine")] * 5, False, Unavailable("no engine")), []
    watch = ControllerWatch(changes, Plans(60), lambda: seen.append(1))
    watch.start()
    wait_until(lambda: changes.asked > 8, 10, "the watch to go on")
    watch.stop()
    assert len(seen) == 2


def test_the_watch_survives_what_it_does_not_know(quick: None, caplog: pytest.LogCaptureFixture) -> None:
    watched(Changes(ZeroDivisionError("surprise"), True), Plans(60), looks=1)
    assert "surprise" in caplog.text
