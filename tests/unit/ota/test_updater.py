"""The update as a whole over a device in memory: the good way, a version that was never on trial, the first one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import NO_VERSION_KNOWN
from tests.support.ota_world import TRIAL_S, World

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
    world.report.forget()
    world.assign("v1")
    world.settle()
    assert world.source.steps == []
    assert world.report.states() == ["UPDATING", "UPDATED"]
    assert world.runs == "v1"


def test_an_image_that_was_obtained_unsigned_is_verified_anew_once_signatures_are_required(world: World) -> None:
    world.assign("v2")
    world.settle()
    world.source.steps.clear()
    world.rules = replace(world.rules, signed_only=True)
    world.reboot_gateway()
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
    world.rules = replace(world.rules, signed_only=True)
    world.reboot_gateway()
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
    world.report.forget()
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


def test_what_cannot_be_looked_at_is_not_called_current_and_it_is_set_right_later(world: World) -> None:
    """What has to run is no answer to the question what runs."""

    def engine_goes() -> None:
        world.engine.end(1)
        world.engine.down = True

    world.source.during = engine_goes
    world.assign("v2")
    assert not advanced(world)
    versions = [values["current_sw_version"] for values in world.report.updates()]
    assert versions[0] == "v1" and set(versions[1:]) == {"UNKNOWN"}
    world.engine.down, world.source.during = False, lambda: None
    world.settle()
    assert (world.last()["sw_state"], world.last()["current_sw_version"]) == ("UPDATED", "v2")


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
