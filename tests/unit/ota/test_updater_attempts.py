"""Reasons that can pass: how often an update is tried, and what cuts an attempt short without counting."""

import pytest

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.job import MAX_ATTEMPTS
from teg.domain.ota.sources import Corrupt
from tests.support.ota_packages import PACKAGE
from tests.support.ota_world import World


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
