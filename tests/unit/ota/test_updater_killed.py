"""Killed at any step of an update, the old or the new version runs and the end is told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.job import MAX_ATTEMPTS, Phase
from tests.support.ota_world import Killed, World


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
