"""A server that lost what it was told (a restored backup, a device made anew) hears how the last update ended."""

from pathlib import Path

from teg.domain.ota.store import tell_again
from tests.support.ota_world import World


def test_the_end_of_the_last_update_is_told_again_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.engine.crashing.add("v2")
    world.assign("v2")
    world.settle()
    told = world.last()
    assert (told["sw_state"], told["current_sw_version"]) == ("FAILED", "v1")
    before = len(world.report.updates())
    tell_again(world.state)
    world.settle()
    world.settle()
    assert world.report.updates()[before:] == [told]


def test_it_is_told_after_a_restart_of_the_gateway_in_between(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.assign("v2")
    world.settle()
    told, before = world.last(), len(world.report.updates())
    world.reboot_gateway()
    tell_again(world.state)
    world.settle()
    assert world.report.updates()[before:] == [told]


def test_a_server_that_was_never_told_anything_is_told_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    tell_again(world.state)
    world.settle()
    assert world.report.updates() == []


def test_it_is_told_while_nothing_runs(tmp_path: Path) -> None:
    world = World(tmp_path, running=None)
    world.engine.crashing.add("v2")
    world.assign("v2")
    world.settle()
    told, before = world.last(), len(world.report.updates())
    assert told["sw_state"] == "FAILED"
    tell_again(world.state)
    world.settle()
    world.settle()
    assert world.report.updates()[before:] == [told]
