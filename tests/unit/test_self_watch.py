"""What is done about a thread that is stuck, and what the service manager hears."""

import logging

import pytest

from producers.self_watch import SelfWatch
from teg.domain.liveness import STUCK_CHECKS, Liveness, ThreadState
from tests.support.own_process import FakeProcess
from tests.support.running import wait_until
from tests.support.threads import runs


def not_run(_: int) -> ThreadState:
    return ThreadState(runs=1, waits_for_disk=False)


@pytest.fixture
def process() -> FakeProcess:
    return FakeProcess()


def test_stuck_is_said_with_its_place_and_ends_the_process(
    process: FakeProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    liveness = Liveness()
    liveness.watch("a worker of lane rpc").note("handle_rpc")
    watch = SelfWatch(liveness, not_run, process, alive=lambda: None)
    for _ in range(STUCK_CHECKS):
        assert not watch.check()
    assert watch.check()
    assert process.endings == ["gracefully"]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "a worker of lane rpc, since 'handle_rpc'" in errors[0]
    assert errors[0].endswith("file.py:1 outer > file.py:2 inner")
    assert "thread other: file.py:3 waits" in caplog.text


def test_the_service_manager_hears_of_work_that_was_done_and_of_nothing_else(process: FakeProcess) -> None:
    told: list[bool] = []
    liveness = Liveness()
    watch = SelfWatch(liveness, not_run, process, alive=lambda: told.append(True))
    watch.check()
    assert told == []
    liveness.committed()
    liveness.took()
    watch.check()
    watch.check()
    assert told == [True]


def test_a_stop_that_does_not_come_to_its_end_is_cut_short(
    process: FakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.self_watch.FIRST_CHECK_S", 0.0)
    monkeypatch.setattr("producers.self_watch.CHECK_S", 0.0)
    liveness = Liveness()
    liveness.watch("stuck")
    watch = SelfWatch(liveness, not_run, process, alive=lambda: None, stop_s=0.0)
    watch.start()
    wait_until(lambda: process.endings == ["gracefully", "at once"], 10, "both")


def test_stopped_it_ends_nothing(process: FakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.self_watch.FIRST_CHECK_S", 3600.0)
    liveness = Liveness()
    liveness.watch("stuck")
    watch = SelfWatch(liveness, not_run, process, alive=lambda: None, stop_s=0.0)
    watch.start()
    watch.stop()
    wait_until(lambda: not runs("self-watch"), 10, "its thread has ended")
    assert process.endings == []
