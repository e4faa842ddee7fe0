"""The update as a whole over a device in memory: what runs, what is told, and what survives a kill at any step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import NO_VERSION_KNOWN
from teg.domain.ota.job import MAX_ATTEMPTS, Phase
from teg.domain.ota.package_download import CalledOff
from teg.domain.ota.sources import Corrupt
from tests.support.ota_world import TRIAL_S, FakeKeys, Killed, World

PACKAGE: dict[str, Any] = {"sw_size": 10, "sw_checksum": "ab" * 32, "sw_checksum_algorithm": "SHA256"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def empty(tmp_path: Path) -> World:
    """A device that has never run a controller."""
    return World(tmp_path, running=None)


# --- the good way ---------------------------------------------------------------------------------------------


def test_an_update_is_told_step_by_step_and_committed_after_its_trial(world: World) -> None:
    world.assign("v2")
    world.settle()
    assert world.report.states() == ["DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED"]
    assert [values["current_sw_version"] for values in world.report.updates()] == ["v1", "v1", "v1", "v1", "v2"]
    assert [values["sw_error"] for values in world.report.updates()] == [""] * 5
    assert world.last()["current_sw_title"] == "ctl"
    assert world.runs == world.supervisor.version() == "v2"
    assert world.engine.starts == ["v1", "v2"]
    assert world.source.clears == 1


def test_the_old_controller_runs_until_the_new_one_is_ready(world: World) -> None:
    running: list[str | None] = []
    world.source.during = lambda: running.append(world.runs)
    world.assign("v2")
    world.settle()
    assert running == ["v1"] * 3


def test_the_trial_takes_its_time(world: World) -> None:
    world.assign("v2")
    begun_s = world.clock.steady_s
    world.settle()
    assert world.clock.steady_s - begun_s >= TRIAL_S


def test_during_the_trial_the_supervisor_keeps_its_hands_off(world: World) -> None:
    world.while_waiting = [world.supervisor.supervise] * 50
    world.assign("v2")
    world.settle()
    assert world.engine.starts == ["v1", "v2"]


def test_nobody_else_gets_the_container_while_it_is_changed(world: World) -> None:
    refused: list[str] = []

    def reach_for_it() -> None:
        with pytest.raises(Unavailable) as reason, world.supervisor.exclusive("a restart by hand", wait_s=0):
            pass
        refused.append(str(reason.value))

    world.while_waiting = [reach_for_it] * 5
    world.assign("v2")
    world.settle()
    assert len(refused) == 5
    assert "update to version v2" in refused[0]


def test_a_kept_image_needs_neither_download_nor_build(world: World) -> None:
    world.assign("v2")
    world.settle()
    world.source.steps.clear()
    world.report.sent.clear()
    world.assign("v1")
    world.settle()
    assert world.source.steps == []
    assert world.report.states() == ["UPDATING", "UPDATED"]
    assert world.runs == "v1"


def test_an_image_that_was_obtained_unsigned_is_verified_anew_once_signatures_are_required(world: World) -> None:
    world.assign("v2")
    world.settle()
    world.source.steps.clear()
    world.update._rules = replace(world.update._rules, signed_only=True)
    world.assign("v1")
    world.settle()
    assert world.source.steps == ["fetch v1", "verify v1", "install v1"]
    world.assign("v2")
    world.settle()
    world.source.steps.clear()
    world.assign("v1")
    world.settle()
    assert world.source.steps == [] and world.runs == "v1"  # once verified, it is known


def test_what_runs_goes_on_running_when_signatures_are_required_later(world: World) -> None:
    world.update._rules = replace(world.update._rules, signed_only=True)
    world.update.advance()
    world.settle()
    assert world.source.steps == [] and world.runs == "v1"


def test_current_and_previous_images_are_kept(world: World) -> None:
    for version in ("v2", "v3"):
        world.assign(version)
        world.settle()
    assert world.engine.removals == [("v2", "v1"), ("v3", "v2")]


def test_images_of_versions_that_failed_do_not_pile_up(world: World) -> None:
    world.assign("v2")
    world.settle()
    world.engine.crashing.add("v3")
    world.assign("v3")
    world.settle()
    assert world.engine.removals[-1] == ("v2", "v1")


def test_an_image_that_vanishes_before_the_change_is_obtained_anew(world: World) -> None:
    original = world.source.install

    def vanishes(job: Any, cancelled: Any) -> None:
        original(job, cancelled)
        world.engine.lose_image("v2")
        world.source.install = original  # type: ignore[method-assign]

    world.source.install = vanishes  # type: ignore[method-assign]
    world.assign("v2")
    world.settle()
    assert world.source.steps == ["fetch v2", "verify v2", "install v2"] * 2
    assert world.runs == "v2"


def test_a_reason_json_cannot_carry_is_told_nevertheless(world: World) -> None:
    world.source.failures = [Refused("cannot read \udcff")]
    world.assign("v2")
    world.settle()
    assert world.last()["sw_error"] == "cannot read ?"


def test_the_version_that_runs_is_only_remembered(world: World) -> None:
    world.assign("v1")
    world.settle()
    assert world.report.states() == ["UPDATED"]
    assert world.engine.starts == ["v1"]
    assert world.source.steps == []


def test_reading_the_same_attributes_again_does_nothing(world: World) -> None:
    world.assign("v2")
    world.settle()
    world.report.sent.clear()
    world.assign("v2")
    world.settle()
    assert world.report.updates() == []
    assert world.engine.starts == ["v1", "v2"]


def test_a_version_that_looks_like_a_number_stays_text(world: World) -> None:
    world.assign("1.10")
    world.settle()
    assert world.runs == "1.10"
    assert world.last()["current_sw_version"] == "v1.10"


# --- a version that was never on trial ---------------------------------------------------------------------------


@pytest.fixture
def cold(tmp_path: Path) -> World:
    """The reference's file names v1 and its image is here; nothing of ours has ever run it."""
    (tmp_path / "last_launched_controller_version.txt").write_text("v1")
    world = World(tmp_path, running=None)
    world.engine.obtain("v1")
    return world


def advanced(world: World) -> bool:
    """Whether the update came to rest; else it says what it waits for."""
    try:
        world.update.advance()
    except Unavailable:
        return False
    return True


def test_a_cold_start_is_no_update_until_it_has_stood_a_trial(cold: World) -> None:
    cold.assign("v1")
    assert not advanced(cold) and cold.report.states() == []
    cold.supervise_for_s(int(TRIAL_S) // 2)
    assert not advanced(cold) and cold.report.states() == []
    cold.supervise_for_s(int(TRIAL_S))
    assert advanced(cold)
    assert cold.report.states() == ["UPDATED"] and cold.last()["current_sw_version"] == "v1"
    assert cold.engine.starts == ["v1"], "it is not started anew for it"


@pytest.mark.parametrize("behaviour", ["crashing", "silent"])
def test_a_cold_start_that_does_not_work_is_never_called_updated(behaviour: str, cold: World) -> None:
    getattr(cold.engine, behaviour).add("v1")
    cold.assign("v1")
    for _ in range(10):
        cold.supervise_for_s(int(TRIAL_S))
        assert not advanced(cold)
    assert cold.report.states() == []


def test_a_committed_version_that_does_not_run_is_not_called_updated(world: World) -> None:
    world.engine.end(1)
    world.assign("v1")
    assert not advanced(world) and world.report.states() == []
    world.supervise_for_s(60)
    assert advanced(world) and world.report.states() == ["UPDATED"]


def test_no_version_is_current_that_does_not_run_and_it_is_set_right_later(world: World) -> None:
    world.engine.end(1)
    world.assign("--evil")
    assert advanced(world)
    assert (world.last()["sw_state"], world.last()["current_sw_version"]) == ("FAILED", "UNKNOWN")
    world.reboot_gateway()
    world.supervise_for_s(60)
    assert advanced(world)
    assert (world.last()["sw_state"], world.last()["current_sw_version"]) == ("FAILED", "v1")
    told = len(world.report.updates())
    assert advanced(world) and len(world.report.updates()) == told, "once"


def test_a_crash_in_the_trial_leaves_no_version_current(world: World) -> None:
    world.engine.crashing.add("v2")
    world.assign("v2")
    world.settle()
    running = {values["current_sw_version"] for values in world.report.updates()}
    assert running <= {"v1", "UNKNOWN"}


# --- the first controller ---------------------------------------------------------------------------------------


def test_a_device_without_a_version_says_so_in_the_references_words(empty: World) -> None:
    empty.assign(None)
    empty.settle()
    assert empty.report.updates() == [
        {
            "current_sw_title": "UNKNOWN",
            "current_sw_version": "UNKNOWN",
            "sw_state": "FAILED",
            "sw_error": NO_VERSION_KNOWN,
        }
    ]


def test_the_first_version_is_obtained_and_started(empty: World) -> None:
    empty.assign("v1")
    empty.settle()
    assert empty.runs == empty.supervisor.version() == "v1"
    assert [values["current_sw_version"] for values in empty.report.updates()] == ["UNKNOWN"] * 4 + ["v1"]


def test_a_first_version_that_fails_its_trial_stays_because_there_is_no_other(empty: World) -> None:
    empty.engine.silent.add("v1")
    empty.assign("v1")
    empty.settle()
    assert empty.runs == empty.supervisor.version() == "v1"
    assert empty.last()["sw_state"] == "FAILED"
    assert "no earlier version to go back to" in empty.last()["sw_error"]


def test_a_device_without_any_controller_never_stops_trying(empty: World) -> None:
    empty.source.failures = [Unavailable("no network")] * 12
    empty.assign("v1")
    empty.settle(rounds=500)
    assert empty.runs == "v1"
    assert empty.last()["sw_state"] == "UPDATED"


def test_the_committed_version_is_obtained_again_when_its_image_is_gone(world: World) -> None:
    world.engine.images.clear()
    world.engine.end(137)
    world.supervisor.supervise()
    world.settle()
    assert world.source.steps == ["fetch v1", "verify v1", "install v1"]
    assert world.runs == "v1"


def test_an_image_that_cannot_be_had_again_is_asked_for_every_quarter_of_an_hour(world: World) -> None:
    world.engine.images.clear()
    world.engine.end(137)
    world.source.failures = [Refused("no Git here")]
    world.settle()
    assert world.last()["sw_error"] == "no Git here"
    world.settle()
    assert world.source.steps == ["fetch v1"]
    world.clock.pass_s(16 * 60)
    world.settle()
    assert world.runs == "v1"


# --- trials that fail ---------------------------------------------------------------------------------------------


def test_a_version_that_crashes_is_rolled_back_with_its_last_words(world: World) -> None:
    world.engine.crashing.add("v2")
    world.assign("v2")
    world.settle()
    assert world.runs == world.supervisor.version() == "v1"
    last = world.last()
    assert (last["sw_state"], last["current_sw_version"]) == ("FAILED", "v1")
    assert "did not stay up: it crashed (exit code 1)" in last["sw_error"]
    assert "last words of v2" in last["sw_error"]


@pytest.mark.parametrize("version", ["v2", "mute"])
def test_after_the_end_of_a_trial_a_restart_starts_what_was_decided(world: World, version: str) -> None:
    world.engine.silent.add("mute")
    world.assign(version)
    world.settle()
    decided = world.runs
    world.supervisor.restart("asked for by the operator")
    assert world.runs == decided == ("v2" if version == "v2" else "v1")


@pytest.mark.parametrize("stored", [{"phase": "unheard of"}, {"serial": 1}, ["a", "list"]])
def test_an_update_another_gateway_version_left_behind_begins_anew(world: World, stored: Any) -> None:
    world.assign("v2")
    world.state.put("ota.job", stored)
    world.settle()
    assert world.runs == "v2"


def test_a_crash_late_in_the_trial_counts(world: World) -> None:
    world.while_waiting = [lambda: None] * 100 + [lambda: world.engine.end(0)]
    world.assign("v2")
    world.settle()
    assert world.runs == "v1"
    assert "it ended by itself (exit code 0)" in world.last()["sw_error"]


def test_a_version_without_heartbeat_is_rolled_back(world: World) -> None:
    world.engine.silent.add("v2")
    world.assign("v2")
    world.settle()
    assert world.runs == "v1"
    assert "sent no heartbeat within 120 s" in world.last()["sw_error"]


@pytest.mark.parametrize("jump_s", [-7_200, 7_200, 56 * 365 * 86_400])
def test_a_jumping_clock_neither_passes_nor_fails_a_trial(world: World, jump_s: int) -> None:
    def jump() -> None:
        world.clock.wall_ms += jump_s * 1000

    world.while_waiting = [lambda: None] * 5 + [jump]
    world.assign("v2")
    world.settle()
    assert world.runs == "v2"
    world.engine.silent.add("v3")
    world.while_waiting = [lambda: None] * 5 + [jump]
    world.assign("v3")
    world.settle()
    assert world.runs == "v2"


def test_a_version_the_engine_cannot_start_is_rolled_back(world: World) -> None:
    world.engine.unstartable.add("v2")
    world.assign("v2")
    world.settle()
    assert world.runs == "v1"
    assert world.last()["sw_error"] == "no such program"


def test_a_bad_version_is_not_tried_again_by_itself(world: World) -> None:
    world.engine.crashing.add("v2")
    world.assign("v2")
    world.settle()
    world.assign("v2")
    world.reboot_gateway()
    world.assign("v2")
    world.settle()
    assert world.engine.starts == ["v1", "v2", "v1"]


@pytest.mark.parametrize(
    "anew",
    [
        lambda world: world.update.pushed(["sw_version", "sw_title"]),
        lambda world: (world.assign(None), world.settle()),
        lambda world: world.assign("v2", sw_tag="second try"),
    ],
    ids=["a push of the same version", "un-assigned and assigned", "another tag"],
)
def test_a_bad_version_is_tried_again_when_it_is_assigned_anew(world: World, anew: Callable[[World], object]) -> None:
    world.engine.crashing.add("v2")
    world.assign("v2")
    world.settle()
    world.engine.crashing.clear()
    anew(world)
    world.assign("v2")
    world.settle()
    assert world.runs == "v2"


def test_a_push_about_other_keys_asks_for_nothing(world: World) -> None:
    world.engine.crashing.add("v2")
    world.assign("v2")
    world.settle()
    world.update.pushed(["FILES", "sw_tag", "sw_url"])
    world.assign("v2")
    world.settle()
    assert world.engine.starts == ["v1", "v2", "v1"]


def test_a_good_version_assigned_anew_is_told_again_without_a_restart(world: World) -> None:
    """The server has set sw_state to QUEUED meanwhile and waits for an answer."""
    world.assign("v2")
    world.settle()
    world.update.pushed(["sw_version"])
    world.assign("v2")
    world.settle()
    assert world.report.states()[-2:] == ["UPDATED", "UPDATED"]
    assert world.engine.starts == ["v1", "v2"]


def test_a_push_alone_is_only_a_hint(world: World) -> None:
    """It may be about a version that is read in a moment: nothing happens before that."""
    world.engine.crashing.add("v2")
    world.assign("v2")
    world.settle()
    world.update.pushed(["sw_version"])
    world.settle()
    assert world.engine.starts == ["v1", "v2", "v1"]
    world.assign("v3")
    world.settle()
    assert world.engine.starts == ["v1", "v2", "v1", "v3"]


def test_the_version_assigned_anew_during_its_own_update_goes_on(world: World) -> None:
    def anew() -> None:
        if world.source.steps[-1] == "verify v2":
            world.update.pushed(["sw_version"])
            world.assign("v2")

    world.source.during = anew
    world.assign("v2")
    world.settle()
    assert world.source.steps == ["fetch v2", "verify v2", "install v2"]
    assert world.engine.starts == ["v1", "v2"]


def test_a_version_that_stops_sending_a_key_is_rolled_back(tmp_path: Path) -> None:
    keys = FakeKeys(["temperature", "humidity"])
    world = World(tmp_path, keys=keys)
    world.clock.pass_s(600)
    keys.later, keys.from_ms = ["temperature"], world.clock.now_ms()
    world.assign("v2")
    world.settle()
    assert world.runs == "v1"
    assert "no longer sends humidity" in world.last()["sw_error"]


class KeysByVersion:
    """What each version sends, by the times it ran."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str]] = []

    def keys_between(self, start_ms: int, end_ms: int) -> set[str]:
        return {key for ts_ms, key in self.sent if start_ms <= ts_ms < end_ms}


def test_what_a_failed_version_sent_is_not_asked_of_the_next_one(tmp_path: Path) -> None:
    keys = KeysByVersion()
    world = World(tmp_path, keys=keys)

    def send() -> None:
        keys.sent.append((world.clock.now_ms(), "renamed" if world.runs == "v2" else "temperature"))

    def some_time(seconds: int) -> None:
        for _ in range(seconds):
            world.pause(1)
            send()

    some_time(300)
    world.clock.pass_s(1)
    world.while_waiting = [send] * 200
    world.assign("v2")
    world.settle()
    assert "no longer sends temperature" in world.last()["sw_error"]
    world.while_waiting = []
    some_time(20)
    world.clock.pass_s(1)
    world.while_waiting = [send] * 200
    world.assign("v3")
    world.settle()
    assert world.runs == "v3"


def test_a_trial_cut_short_does_not_forget_what_the_old_version_sent(tmp_path: Path) -> None:
    keys = FakeKeys(["temperature"])
    world = World(tmp_path, keys=keys)
    world.clock.pass_s(600)
    world.while_waiting = [lambda: None] * 3 + [world.stopping.set]
    world.assign("v2")
    world.settle()
    world.stopping.clear()
    world.clock.boot, world.clock.steady_s = "boot-2", 20.0
    world.engine.end(255)
    world.reboot_gateway()
    keys.later, keys.from_ms = ["renamed"], 0
    world.settle()
    assert world.runs == "v1"
    assert "no longer sends temperature" in world.last()["sw_error"]


def test_a_version_that_sends_all_the_old_keys_and_more_is_committed(tmp_path: Path) -> None:
    keys = FakeKeys(["temperature"])
    world = World(tmp_path, keys=keys)
    world.clock.pass_s(600)
    keys.later, keys.from_ms = ["temperature", "pressure"], world.clock.now_ms()
    world.assign("v2")
    world.settle()
    assert world.runs == "v2"


def test_when_the_previous_image_is_gone_too_the_new_one_stays(world: World) -> None:
    world.engine.silent.add("v2")
    world.while_waiting = [lambda: None] * 10 + [lambda: world.engine.lose_image("v1")]
    world.assign("v2")
    world.settle()
    assert world.runs == world.supervisor.version() == "v2"
    assert world.last()["sw_state"] == "FAILED"
    assert "the image of the previous version v1 is gone" in world.last()["sw_error"]


# --- reasons that can pass --------------------------------------------------------------------------------------


def test_what_can_pass_is_tried_three_times_and_then_given_up(world: World) -> None:
    world.source.failures = [Unavailable("no network")] * 9
    world.assign("v2")
    world.settle()
    assert world.source.steps == ["fetch v2"] * MAX_ATTEMPTS
    assert world.last()["sw_state"] == "FAILED"
    assert world.last()["sw_error"] == "given up after 3 attempts: no network"
    assert world.engine.starts == ["v1"]


def test_the_second_attempt_may_succeed_and_the_first_is_told(world: World) -> None:
    world.source.failures = [Unavailable("no network")]
    world.assign("v2")
    world.settle()
    assert world.runs == "v2"
    errors = [values["sw_error"] for values in world.report.updates()]
    assert "attempt 1 failed, it is tried again: no network" in errors


def test_attempts_wait_for_their_time_whoever_triggers(world: World) -> None:
    world.source.failures = [Unavailable("no network")] * 3
    world.assign("v2")
    for _ in range(10):
        with pytest.raises(Unavailable, match="goes on in"):
            world.update.advance()
    assert world.source.steps == ["fetch v2"]


def test_a_clock_that_jumped_back_does_not_delay_the_next_attempt(world: World) -> None:
    world.source.failures = [Unavailable("no network")]
    world.assign("v2")
    with pytest.raises(Unavailable):
        world.update.advance()
    world.clock.wall_ms -= 3_600_000
    world.settle(rounds=1)
    assert world.runs == "v2"


def test_a_download_that_grows_is_not_given_up(world: World) -> None:
    def grow() -> None:
        world.source.held += 100

    world.source.during = grow
    world.source.failures = [Unavailable("connection lost")] * 8
    world.assign("v2", **PACKAGE)
    world.settle()
    assert world.runs == "v2"
    assert world.source.steps.count("fetch v2") == 9


def test_a_download_that_does_not_grow_is_given_up(world: World) -> None:
    world.source.held = 100
    world.source.failures = [Unavailable("the server sent 100 of 200 bytes and then nothing")] * 9
    world.assign("v2", **PACKAGE)
    world.settle()
    assert world.source.steps == ["fetch v2"] * MAX_ATTEMPTS
    assert world.last()["sw_state"] == "FAILED"


def test_what_can_never_be_accepted_is_tried_once(world: World) -> None:
    world.source.failures = [Refused("no such tag")]
    world.assign("v2")
    world.settle()
    assert world.source.steps == ["fetch v2"]
    assert world.last()["sw_error"] == "no such tag"
    assert world.source.clears == 1


def test_a_damaged_download_is_fetched_again(world: World) -> None:
    failures: list[Exception] = [Corrupt("wrong checksum")]

    def spoil() -> None:
        if world.source.steps[-1].startswith("verify") and failures:
            raise failures.pop()

    world.source.during = spoil
    world.assign("v2", **PACKAGE)
    world.settle()
    assert world.source.steps == ["fetch v2", "verify v2", "fetch v2", "verify v2", "install v2"]
    assert world.runs == "v2"


def test_an_engine_that_fails_at_the_start_leaves_the_old_one_running(world: World) -> None:
    world.source.during = lambda: setattr(world.engine, "fail_next_stop", True)
    original = world.engine.stop
    failures = [Unavailable("engine slow")]

    def stop(timeout_s: float = 60) -> None:
        original(timeout_s)
        if failures:
            raise failures.pop()

    world.engine.stop = stop  # type: ignore[method-assign]
    world.assign("v2")
    with pytest.raises(Unavailable):
        world.update.advance()
    world.supervisor.supervise()
    world.clock.pass_s(10)
    world.supervisor.supervise()
    assert world.runs == "v1"
    world.settle()
    assert world.runs == "v2"


def test_an_engine_away_during_the_trial_says_nothing_about_the_version(world: World) -> None:
    def down() -> None:
        world.engine.down = True

    def up() -> None:
        world.engine.down = False
        world.engine.end(137)

    world.while_waiting = [lambda: None] * 3 + [down, *[lambda: None] * 5, up]
    world.assign("v2")
    world.settle()
    assert world.runs == "v2"
    assert world.engine.starts == ["v1", "v2", "v2"]


def test_a_reboot_in_the_trial_begins_it_anew(world: World) -> None:
    world.while_waiting = [lambda: None] * 3 + [world.stopping.set]
    world.assign("v2")
    world.settle()
    assert world.records.job() is not None
    world.stopping.clear()
    world.clock.boot, world.clock.steady_s = "boot-2", 20.0
    world.engine.end(255)
    world.reboot_gateway()
    world.supervisor.supervise()
    assert world.runs == "v1"
    world.settle()
    assert world.runs == "v2"


def test_a_version_that_never_survives_three_trials_cut_short_is_given_up(world: World) -> None:
    world.assign("v2")
    for boot in range(6):
        if world.report.states()[-1:] == ["FAILED"]:
            break
        world.while_waiting = [lambda: None] * 3 + [world.stopping.set]
        world.settle()
        world.stopping.clear()
        world.clock.boot, world.clock.steady_s = f"boot-{boot + 2}", 20.0
        world.engine.end(255)
        world.reboot_gateway()
        world.supervisor.supervise()
        world.while_waiting = []
    world.settle()
    assert world.runs == "v1"
    assert world.last()["sw_state"] == "FAILED"
    assert world.engine.starts.count("v2") == MAX_ATTEMPTS


# --- other wishes in between ------------------------------------------------------------------------------------


def test_an_assignment_that_is_refused_is_told_and_nothing_else(world: World) -> None:
    world.assign("--upload-pack=x")
    world.settle()
    assert world.last()["sw_state"] == "FAILED"
    assert "sw_version '--upload-pack=x' is not accepted" in world.last()["sw_error"]
    assert world.source.steps == []
    assert world.engine.starts == ["v1"]


def test_an_unassigned_update_is_called_off_and_told_to_its_end(world: World) -> None:
    world.source.during = lambda: world.assign(None)
    world.source.failures = [CalledOff("not wanted")]
    world.assign("v2")
    world.settle()
    assert world.report.states() == ["DOWNLOADING", "UPDATED"]
    assert world.last()["current_sw_version"] == "v1"
    assert world.engine.starts == ["v1"]
    assert world.source.clears == 1


def test_an_unassignment_while_building_needs_no_help_of_the_source(world: World) -> None:
    """The build was finished before the wish was seen; what is installed then is not started."""
    world.source.during = lambda: world.assign(None) if world.source.steps[-1] == "install v2" else None
    world.assign("v2")
    world.settle()
    assert world.runs == "v1"
    assert world.engine.starts == ["v1"]


def test_a_newer_version_while_building_wins(world: World) -> None:
    world.source.during = lambda: world.assign("v3") if world.source.steps[-1] == "install v2" else None
    world.assign("v2")
    world.settle()
    assert world.engine.starts == ["v1", "v3"]
    assert world.runs == "v3"


def test_a_newer_version_in_the_trial_waits_for_the_verdict(world: World) -> None:
    world.while_waiting = [lambda: None] * 3 + [lambda: world.assign("v3")]
    world.assign("v2")
    world.settle()
    assert world.engine.starts == ["v1", "v2", "v3"]
    assert world.records.previous() == "v2"


def test_the_previous_version_wanted_in_the_trial_runs_again_at_once(world: World) -> None:
    begun_s = world.clock.steady_s
    world.while_waiting = [lambda: None] * 3 + [lambda: world.assign("v1")]
    world.assign("v2")
    world.settle()
    assert world.runs == "v1"
    assert world.clock.steady_s - begun_s < TRIAL_S
    assert world.report.states()[-2:] == ["FAILED", "UPDATED"]
    assert "wanted again" in world.report.updates()[-2]["sw_error"]


def test_the_same_version_assigned_again_in_the_middle_goes_on(world: World) -> None:
    def twice() -> None:
        if world.source.steps[-1] == "verify v2":
            world.assign(None)
            world.assign("v2")

    world.source.during = twice
    world.assign("v2")
    world.settle()
    assert world.source.steps == ["fetch v2", "verify v2", "install v2"]
    assert world.engine.starts == ["v1", "v2"]
    assert world.report.states()[-1] == "UPDATED"


def test_unassigned_in_the_trial_the_trial_is_finished_without_another_restart(world: World) -> None:
    world.while_waiting = [lambda: None] * 3 + [lambda: world.assign(None)]
    world.assign("v2")
    world.settle()
    assert world.runs == "v2"
    assert world.engine.starts == ["v1", "v2"]


def test_unassigned_at_rest_nothing_happens(world: World) -> None:
    world.assign("v2")
    world.settle()
    world.report.sent.clear()
    world.assign(None)
    world.settle()
    assert world.report.updates() == []
    assert world.runs == "v2"


def test_other_content_under_an_installed_version_is_refused(world: World) -> None:
    world.assign("v2", **PACKAGE)
    world.settle()
    world.assign("v2", **{**PACKAGE, "sw_checksum": "cd" * 32})
    world.settle()
    assert world.last()["sw_state"] == "FAILED"
    assert "give changed software a new version" in world.last()["sw_error"]
    assert world.engine.starts == ["v1", "v2"]


def test_other_content_under_a_version_that_failed_is_obtained_anew(world: World) -> None:
    world.engine.crashing.add("v2")
    world.assign("v2", **PACKAGE)
    world.settle()
    world.engine.crashing.clear()
    world.source.steps.clear()
    world.assign("v2", **{**PACKAGE, "sw_checksum": "cd" * 32})
    world.settle()
    assert world.source.steps == ["fetch v2", "verify v2", "install v2"]
    assert world.runs == "v2"


def test_a_tag_is_pinned_to_its_first_commit(world: World) -> None:
    world.assign("v2")
    world.settle()
    assert world.records.pinned_commit("v2") == "c" * 40
    world.engine.lose_image("v2")
    commits: list[str] = []
    original = world.source.fetch

    def fetch(job: Any, cancelled: Any) -> Any:
        commits.append(job.commit)
        return original(job, cancelled)

    world.source.fetch = fetch  # type: ignore[method-assign]
    world.engine.end(137)
    world.settle()
    assert commits == ["c" * 40]


def test_a_graceful_stop_is_no_attempt(world: World) -> None:
    def stop() -> None:
        world.stopping.set()

    for _ in range(5):
        world.source.during = stop
        world.source.failures = [CalledOff("stopping")]
        world.assign("v2")
        world.settle()
        world.stopping.clear()
        world.reboot_gateway()
    world.source.during = lambda: None
    world.settle()
    assert world.runs == "v2"


# --- kill -9 ------------------------------------------------------------------------------------------------------


def good(world: World) -> None:
    world.assign("v2")


def crashing(world: World) -> None:
    world.engine.crashing.add("v2")
    world.assign("v2")


def silent(world: World) -> None:
    world.engine.silent.add("v2")
    world.assign("v2")


def unstartable(world: World) -> None:
    world.engine.unstartable.add("v2")
    world.assign("v2")


def kept(world: World) -> None:
    world.engine.images["v2"] = "runs"
    world.assign("v2")


def refused(world: World) -> None:
    world.source.failures = [Refused("no such tag")] * 9
    world.assign("v2")


def flaky(world: World) -> None:
    world.source.failures = [Unavailable("no network")]
    world.assign("v2")


def unassigned(world: World) -> None:
    world.source.during = lambda: world.assign(None) if world.source.steps[-1] == "install v2" else None
    world.assign("v2")


SCENARIOS = [good, crashing, silent, unstartable, kept, refused, flaky, unassigned]
ENDS_NEW = {good, kept, flaky}


def killed_at(world: World, scenario: Callable[[World], None], step: int) -> bool:
    """Run the scenario and die at effect number `step`; False if it ended before."""
    world.effects.kill_at = step
    try:
        scenario(world)
        world.settle()
    except Killed:
        return True
    return False


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_killed_at_any_step_the_old_or_the_new_runs_and_the_end_is_told(
    tmp_path: Path, scenario: Callable[[World], None]
) -> None:
    step = 0
    while True:
        step += 1
        directory = tmp_path / str(step)
        directory.mkdir()
        world = World(directory)
        if not killed_at(world, scenario, step):
            break
        where = world.effects.log[-1]
        world.reboot_gateway()
        world.supervise_for_s(10)
        assert world.runs in ("v1", "v2"), f"nothing runs after a kill at {where}"
        world.source.during = lambda: None
        if scenario is unassigned:
            world.assign(None)
        else:
            world.assign("v2")  # read again at the connect
        world.settle()
        world.supervisor.supervise()
        assert world.records.job() is None
        assert world.runs == world.supervisor.version(), where
        assert world.runs == ("v2" if scenario in ENDS_NEW else "v1"), where
        if world.report.states():
            assert world.report.states()[-1] == (
                "FAILED" if scenario in (crashing, silent, unstartable, refused) else "UPDATED"
            )
            assert world.last()["current_sw_version"] == world.runs, where
    assert step > 8


@pytest.mark.parametrize("scenario", [good, silent])
def test_killed_twice_anywhere_it_still_ends_well(tmp_path: Path, scenario: Callable[[World], None]) -> None:
    first = 0
    while True:
        first += 3
        directory = tmp_path / str(first)
        directory.mkdir()
        if not _killed_twice(directory, scenario, first):
            break
    assert first > 9


def _killed_twice(directory: Path, scenario: Callable[[World], None], first: int) -> bool:
    for second in range(1, 40, 4):
        place = directory / str(second)
        place.mkdir()
        world = World(place)
        if not killed_at(world, scenario, first):
            return False
        world.reboot_gateway()
        world.effects.kill_at = world.effects.count + second
        try:
            world.supervisor.supervise()
            world.settle()
        except Killed:
            world.reboot_gateway()
        world.effects.kill_at = None
        world.supervise_for_s(10)
        assert world.runs in ("v1", "v2")
        world.settle()
        world.supervisor.supervise()
        assert world.runs == world.supervisor.version() == ("v2" if scenario is good else "v1")
    return True


def test_work_that_kills_the_gateway_each_time_is_given_up(world: World) -> None:
    def die() -> None:
        raise Killed("out of memory")

    world.source.during = die
    world.assign("v2")
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Killed):
            world.update.advance()
        world.reboot_gateway()
    world.settle()
    assert world.source.steps == ["fetch v2"] * MAX_ATTEMPTS
    assert "given up after 3 attempts: the gateway was interrupted each time" in world.last()["sw_error"]
    assert world.runs == "v1"


def test_each_phase_is_stored_before_it_is_acted_on(world: World) -> None:
    phases: list[Phase] = []
    world.source.during = lambda: phases.append(_phase(world))
    world.assign("v2")
    world.settle()
    assert phases == [Phase.FETCHING, Phase.VERIFYING, Phase.INSTALLING]
    log = world.effects.log
    assert log.index("put controller.trial") < log.index("stop") < log.index("start v2")


def _phase(world: World) -> Phase:
    job = world.records.job()
    assert job is not None
    return replace(job).phase
