"""Worker types, services, the timetable, immediate mode; and a task whose trouble is said once."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tasks import huey_app
from tasks.consumer import TimetableScheduler
from tasks.huey_app import GatewayHuey
from tasks.in_memory import Troubles
from tasks.lanes import WORKERS
from tasks.queue import huey as the_huey
from tasks.timetable import Every
from teg.domain.errors import NotConnected, Refused, Unavailable
from tests.support.queue_file import RETRY, run_next, unavailable


@pytest.mark.parametrize("kind", ["process", "greenlet", "gevent"])
def test_other_worker_types_are_refused(kind: str) -> None:
    with pytest.raises(SystemExit, match="only thread workers"):
        the_huey.create_consumer(worker_type=kind)


def test_no_option_of_the_consumer_can_make_it_wrong() -> None:
    consumer = the_huey.create_consumer(workers=1, periodic=True, check_worker_health=False, graceful_signal="INT")
    assert consumer.workers == sum(WORKERS.values())
    assert not consumer.periodic
    assert consumer._health_check, "a worker that died must come back"
    assert consumer.shutdown_timeout == huey_app.SHUTDOWN_TIMEOUT_S
    assert all(graceful and not restart for restart, graceful in consumer._signal_actions.values())
    assert the_huey.create_consumer(shutdown_timeout=5).shutdown_timeout == 5


def test_the_services_are_open_only_while_serving() -> None:
    with pytest.raises(Unavailable, match="not open"):
        _ = the_huey.services
    services: Any = object()
    with the_huey.serving(services):
        assert the_huey.services is services
    with pytest.raises(Unavailable, match="not open"):
        _ = the_huey.services


def entry(interval_s: float) -> tuple[Every, list[int]]:
    calls: list[int] = []
    wrapper: Any = partial(calls.append, 1)
    return Every(interval_s, wrapper), calls


def test_the_timetable_runs_at_the_start_then_at_each_interval() -> None:
    every, calls = entry(20)
    for second in range(1000, 1061):
        every.tick(second)
    assert len(calls) == 4


def test_a_long_stall_counts_once() -> None:
    every, calls = entry(20)
    every.tick(1000)
    every.tick(99_000)
    every.tick(99_001)
    assert len(calls) == 2


def test_a_monotonic_clock_near_zero_is_no_reason_to_wait() -> None:
    """A gateway that starts with the machine: the clock has hardly begun."""
    every, calls = entry(3600)
    every.tick(0.1)
    assert len(calls) == 1


@pytest.fixture
def immediate() -> Iterator[GatewayHuey]:
    the_huey.immediate = True
    yield the_huey
    the_huey.immediate = False


def test_immediate_mode_goes_through_the_wire_format(immediate: GatewayHuey, declare: Callable[..., Any]) -> None:
    seen: list[Any] = []
    work = declare("work", seen.append)
    work({"a": [1, None]})
    assert seen == [{"a": [1, None]}]
    with pytest.raises(Refused):
        work((1, 2))
    with pytest.raises(Refused):
        work(time)


def test_immediate_mode_keeps_a_retry_to_be_looked_at(immediate: GatewayHuey, declare: Callable[..., Any]) -> None:
    declare("look", unavailable, retry=RETRY)()
    [later] = immediate.scheduled()
    assert later.name == "look"


def test_nothing_of_one_test_is_left_for_the_next(immediate: GatewayHuey, declare: Callable[..., Any]) -> None:
    """Same as above, on purpose: a retry remembered from there would make this one fail."""
    declare("look", unavailable, retry=RETRY)()
    assert len(immediate.scheduled()) == 1


def test_a_task_that_cannot_do_its_work_says_so_once_and_once_when_it_can(
    queue: GatewayHuey, declare: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Before, it was said at DEBUG: telemetry could stand still in silence."""
    failing = [True]

    def body() -> None:
        if failing[0]:
            raise Unavailable("gateway.db: disk is full")

    look = declare("look_for_trouble", body)
    for _ in range(5):
        look()
        run_next()
    assert caplog.text.count("look_for_trouble cannot do its work: gateway.db: disk is full") == 1
    assert queue.troubles.current()["look_for_trouble"] == "gateway.db: disk is full"
    failing[0] = False
    for _ in range(3):
        look()
        run_next()
    assert caplog.text.count("look_for_trouble does its work again") == 1
    assert "look_for_trouble" not in queue.troubles.current()


def test_no_connection_is_no_trouble_of_a_task(
    queue: GatewayHuey, declare: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def body() -> None:
        raise NotConnected("no session")

    look = declare("look_without_connection", body)
    for _ in range(5):
        look()
        run_next()
    assert "look_without_connection" not in caplog.text


# --- the scheduler outlives what it meets


class Line:
    """A line of the timetable that counts its turns, and raises while it is broken."""

    def __init__(self, name: str, broken: Exception | None = None) -> None:
        self.name, self.broken, self.turns = name, broken, 0

    def tick(self, now_s: float, run: Callable[..., None]) -> None:
        self.turns += 1
        if self.broken:
            raise self.broken

    def make_due(self) -> None: ...


@pytest.fixture
def turns(queue: GatewayHuey, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Goes through the timetable so often, on this thread."""
    monkeypatch.setattr(queue, "troubles", Troubles(huey_app.logger.warning))

    def go(lines: tuple[Line, ...], times: int) -> None:
        monkeypatch.setattr(queue, "timetable", lines)
        scheduler = TimetableScheduler(queue, interval=1, periodic=False, stop_flag=threading.Event())
        scheduler.initialize()
        try:
            for _ in range(times):
                queue.wake_up.scheduler.wake()
                scheduler.loop()
        finally:
            scheduler.shutdown()

    return go


def test_a_line_that_raises_keeps_no_other_from_its_turn_and_is_said_once(
    queue: GatewayHuey, turns: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = Line("check_files", KeyError("a defect of ours")), Line("sweep")
    turns((bad, good), 4)
    assert (bad.turns, good.turns) == (4, 4)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.getMessage() for record in errors] == ["the timetable: check_files raised KeyError"]
    assert errors[0].exc_info, "with its trace: it is a defect"
    assert queue.troubles.current() == {"the timetable's check_files": "KeyError('a defect of ours')"}


def test_a_line_that_does_its_work_again_is_said_so(
    queue: GatewayHuey, turns: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    line = Line("check_files", KeyError("a defect of ours"))
    turns((line,), 3)
    line.broken = None
    turns((line,), 1)
    assert caplog.messages[-1] == "the timetable's check_files does its work again"
    assert queue.troubles.current() == {}


def test_a_line_that_cannot_be_looked_at_now_is_no_defect(
    turns: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    line = Line("check_files", Unavailable("disk full"))
    turns((line,), 3)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_queue_that_surprises_the_scheduler_does_not_end_it(
    queue: GatewayHuey,
    turns: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def surprise() -> None:
        raise KeyError("a defect of ours")

    line = Line("sweep")
    monkeypatch.setattr(queue, "tend_storage", surprise)
    turns((line,), 3)
    assert line.turns == 3
    assert caplog.text.count("the timetable: the queue's care raised KeyError") == 1
