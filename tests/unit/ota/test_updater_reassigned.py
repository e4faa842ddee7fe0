"""Other wishes while an update is under way: refused, withdrawn, newer, the same again, other content."""

from typing import Any

from teg.domain.ota.package_download import CalledOff
from tests.support.ota_packages import PACKAGE
from tests.support.ota_world import TRIAL_S, World


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
    world.report.forget()
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
