"""The supervisor over everything in memory: beside an update, from several threads, and without a controller."""

import logging
import threading

import pytest

from producers import controller_watch
from producers.controller_watch import ControllerWatch
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.supervisor import NextCheck, NoController
from tests.support.controllers import Supervised
from tests.support.running import wait_until

HOUR_S = 3600.0


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
