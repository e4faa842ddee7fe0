"""The promise of `ports.Clock`, kept by the system's clock and by those that tests turn by hand."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature

import pytest

from controller_client.teg_controller import Gateway
from teg.adapters.clock import SystemClock
from teg.domain.ports import Clock
from tests.support import client_file, controllers, links, ota_world, remote_files, rpc


@dataclass
class Harness:
    clock: Clock
    wait_s: Callable[[float], object]
    reboot: Callable[[], object] | None = None


def system() -> Harness:
    return Harness(SystemClock(), time.sleep)


def supervision() -> Harness:
    clock = controllers.TurnedClock()
    return Harness(clock, clock.advance, clock.reboot)


def calls() -> Harness:
    clock = rpc.FakeClock()
    return Harness(clock, clock.advance, clock.reboot)


def updates() -> Harness:
    clock = ota_world.FakeClock()
    return Harness(clock, clock.pass_s, clock.reboot)


def files() -> Harness:
    clock = remote_files.HandClock()
    return Harness(clock, clock.advance, clock.reboot)


def publishing() -> Harness:
    clock = links.FakeClock()
    return Harness(clock, clock.advance)


KINDS = (system, supervision, calls, updates, files, publishing)


@pytest.fixture(params=KINDS, ids=lambda kind: str(kind.__name__))
def harness(request: pytest.FixtureRequest) -> Harness:
    made: Harness = request.param()
    return made


def test_the_wall_clock_tells_whole_milliseconds_of_this_age(harness: Harness) -> None:
    now_ms = harness.clock.now_ms()
    assert type(now_ms) is int
    assert 1_600_000_000_000 < now_ms < 4_000_000_000_000


def test_both_clocks_go_on_and_the_boot_stays(harness: Harness) -> None:
    clock = harness.clock
    wall_ms, steady_s, boot = clock.now_ms(), clock.monotonic_s(), clock.boot_id()
    assert clock.monotonic_s() >= steady_s >= 0 and boot
    harness.wait_s(0.05)
    assert clock.monotonic_s() - steady_s >= 0.05 - 1e-6
    assert clock.now_ms() - wall_ms >= 49
    assert clock.boot_id() == boot


def test_a_boot_has_a_name_of_its_own_and_begins_near_zero(harness: Harness) -> None:
    if harness.reboot is None:
        assert SystemClock().boot_id() == SystemClock().boot_id()
        return
    before = harness.clock.boot_id()
    harness.reboot()
    assert harness.clock.boot_id() != before
    assert 0 <= harness.clock.monotonic_s() < 600


@pytest.mark.parametrize("clock", [signature(Gateway).parameters["clock"].default, client_file.FakeClock()])
def test_the_clock_of_the_controllers_client_tells_whole_milliseconds_of_this_age(clock: Callable[[], int]) -> None:
    now_ms = clock()
    assert type(now_ms) is int
    assert 1_600_000_000_000 < now_ms < 4_000_000_000_000
    assert clock() >= now_ms
