"""Trials that fail: what is rolled back, what is told, and when a version is tried again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.ota_world import FakeKeys, World


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
