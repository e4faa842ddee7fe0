"""The queue on a real file: lanes, wake-up, triggers, retries, poison; and a file that is held, removed, damaged."""

import datetime
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huey.utils
import orjson
import pytest

from tasks import huey_app, triggers
from tasks.consumer import GatewayConsumer
from tasks.huey_app import Every, GatewayHuey
from tasks.kept_tasks import MAX_KEPT
from tasks.lanes import WORKERS, Lane
from tasks.queue import huey as the_huey
from tasks.queue import task
from tasks.telemetry import archive_records
from teg.domain.backoff import Backoff
from teg.domain.errors import NotConnected, Refused, Unavailable
from tests.support.running import remove_tree, wait_until

ROOT = Path(__file__).resolve().parents[2]
RETRY = Backoff(first_s=1.0, cap_s=60.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "huey_data" / "huey.db"


@pytest.fixture(autouse=True)
def no_timetable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this session may have imported the gateway with its own."""
    monkeypatch.setattr(the_huey, "timetable", ())


@pytest.fixture
def queue(path: Path) -> Iterator[GatewayHuey]:
    the_huey.open(f"sqlite://{path}")
    yield the_huey
    the_huey.close()


@pytest.fixture
def declare() -> Iterator[Callable[..., Any]]:
    """`declare(name, body, lane=…)` makes a task for this test only."""
    made: list[Any] = []

    def make(name: str, body: Callable[..., None], lane: Lane = Lane.WORK, **options: Any) -> Any:
        made.append(task(name=name, lane=lane, **options)(body))
        return made[-1]

    yield make
    for wrapper in made:
        wrapper.unregister()


class Workers:
    """The consumer's threads without its process: no signals, no lifespan."""

    def __init__(self, scheduler: bool = True) -> None:
        consumer = the_huey.create_consumer()
        assert isinstance(consumer, GatewayConsumer)
        self.consumer = consumer
        self.scheduler = scheduler

    def __enter__(self) -> "Workers":
        if self.scheduler:
            self.consumer.scheduler.start()
        for _worker, thread in self.consumer.worker_threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.consumer.stop_flag.set()
        the_huey.wake_up.notify_all()
        for _worker, thread in self.consumer.worker_threads:
            thread.join(20)
            assert not thread.is_alive()
        if self.scheduler:
            self.consumer.scheduler.join(20)


def run_next(lane: Lane = Lane.WORK) -> Any:
    """Take and run the next task of `lane` in this thread, without waiting for one."""
    the_huey.serve(lane)
    if not the_huey._kept.waiting(lane) and not the_huey.lanes[lane].queue_size():
        return None
    found = the_huey.dequeue()
    if found is not None:
        the_huey.execute(found)
    return found


def insert(path: Path, data: Any, lane: Lane = Lane.WORK) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("insert into task (queue, data, priority) values (?, ?, 0)", (f"teg-{lane}", data))


def depth() -> int:
    return the_huey.pending_count() + the_huey.scheduled_count()


def unavailable(*_: object) -> None:
    raise Unavailable("no network")


# --- lanes and wake-up -------------------------------------------------------------------------------------


def test_a_busy_lane_delays_no_other(queue: GatewayHuey, declare: Callable[..., Any]) -> None:
    """Every worker of every other lane is stuck, as in a hung Docker call; the RPC lane still answers."""
    released, answered = threading.Event(), threading.Event()
    stuck = threading.Semaphore(0)

    def hang(number: int) -> None:
        stuck.release()
        released.wait(60)

    others = [lane for lane in Lane if lane != Lane.RPC]
    hanging = {lane: declare(f"hang_{lane}", hang, lane) for lane in others}
    answer = declare("answer", lambda number: answered.set(), Lane.RPC)
    with Workers(scheduler=False):
        for lane in others:
            for number in range(WORKERS[lane] + 3):
                hanging[lane](number)
        for _ in range(sum(WORKERS[lane] for lane in others)):
            assert stuck.acquire(timeout=20)
        answer(1)
        assert answered.wait(20)
        assert not released.is_set()
        released.set()


def test_every_lane_is_served_by_its_own_workers(queue: GatewayHuey, declare: Callable[..., Any]) -> None:
    seen: dict[Lane, str] = {}
    tasks = {lane: declare(f"note_{lane}", lambda name: seen.update({Lane(name): name}), lane) for lane in Lane}
    with Workers(scheduler=False):
        for lane in Lane:
            tasks[lane](str(lane))
        wait_until(lambda: len(seen) == len(Lane), 20, "a task of each lane ran")
    assert all(WORKERS[lane] >= 1 for lane in Lane)


def test_an_enqueue_wakes_an_idle_worker_without_polling(queue: GatewayHuey, declare: Callable[..., Any]) -> None:
    """No scheduler here, so nothing but the ring could wake the worker before its minute is over."""
    ran = threading.Semaphore(0)
    note = declare("note", lambda number: ran.release(), Lane.RPC)
    with Workers(scheduler=False):
        for number in range(20):
            note(number)
            assert ran.acquire(timeout=huey_app.IDLE_WAIT_S / 3)


OTHER_PROCESS = """
import sys
from tasks.queue import huey
from tasks.telemetry import archive_records
import tasks.periodic
huey.open(sys.argv[1])
archive_records()
archive_records()
print(huey.lanes["telemetry"].queue_size())
huey.close()
"""


def test_another_processs_task_is_noticed(queue: GatewayHuey, path: Path) -> None:
    ran = threading.Event()
    assert archive_records.task_class.__name__ == "archive_records", "known in this process, too"
    recorder = SimpleNamespace(run=lambda stopping: ran.set())
    services: Any = SimpleNamespace(recorder=recorder, stopping=threading.Event())
    with queue.serving(services), Workers():
        command = [sys.executable, "-c", OTHER_PROCESS, f"sqlite://{path}"]
        subprocess.run(command, cwd=ROOT, check=True, timeout=60)
        assert ran.wait(20)


# --- coalescing --------------------------------------------------------------------------------------------


def test_triggers_coalesce_and_tasks_with_arguments_do_not(queue: GatewayHuey, declare: Callable[..., Any]) -> None:
    trigger, work = declare("look", lambda: None), declare("work", lambda number: None)
    for number in range(100):
        trigger()
        work(number)
    assert queue.pending_count() == 101


def test_a_trigger_that_comes_while_it_runs_is_queued_again(queue: GatewayHuey, declare: Callable[..., Any]) -> None:
    """The run may have looked already, so what is new would otherwise wait for the next sweep."""
    look: Any = declare("look", lambda: look())
    look()
    declare("work", lambda number: None)(1)  # the lane is not empty meanwhile
    run_next()
    assert queue.pending_count() == 2


def test_an_expired_trigger_does_not_block_the_next(queue: GatewayHuey, declare: Callable[..., Any]) -> None:
    ran: list[int] = []
    look = declare("look", lambda: ran.append(1), expires_s=10)
    look()
    queue.serve(Lane.WORK)
    late = queue.dequeue()
    assert late is not None
    late.expires_resolved = datetime.datetime(2020, 1, 1)
    queue.execute(late)
    assert ran == []
    look()
    run_next()
    assert ran == [1]


def test_a_queue_emptied_by_somebody_else_does_not_block_triggers(
    queue: GatewayHuey, declare: Callable[..., Any], path: Path
) -> None:
    """As after FLUSHALL, or a Redis that came back empty."""
    look = declare("look", lambda: None)
    look()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("delete from task")
    look()
    assert queue.pending_count() == 1


def test_an_expired_task_is_dropped(queue: GatewayHuey, declare: Callable[..., Any]) -> None:
    ran: list[int] = []
    work = declare("work", ran.append, expires_s=10)
    queued = work.s(1)
    queued.expires_resolved = huey.utils.utcnow() - datetime.timedelta(seconds=1)
    queue.enqueue(queued)
    work(2)
    run_next()
    run_next()
    assert ran == [2]
    assert depth() == 0


# --- retries -----------------------------------------------------------------------------------------------


class FakeTime:
    """Moves Huey's clock and our monotonic one together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = datetime.datetime(2026, 1, 1)
        self.start = self.now
        monkeypatch.setattr(huey.utils, "utcnow", lambda: self.now)
        monkeypatch.setattr(the_huey, "_get_timestamp", lambda: self.now)
        monkeypatch.setattr(triggers, "time", SimpleNamespace(monotonic=self.elapsed_s))

    def elapsed_s(self) -> float:
        return (self.now - self.start).total_seconds()

    def advance(self, seconds: float) -> None:
        self.now += datetime.timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


def test_a_long_outage_leaves_one_retry_a_trigger(
    queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime
) -> None:
    """Two hours without a network, second by second: every sweep and every retry fails; one task waits."""
    runs: list[float] = []

    def fail() -> None:
        runs.append(clock.elapsed_s())
        raise Unavailable("no network")

    look = declare("look", fail, retry=RETRY)
    deepest = 0
    for _second in range(2 * 3600):
        clock.advance(1)
        if clock.now.second == 0:
            look()
        queue.enqueue_due()
        while run_next():
            pass
        deepest = max(deepest, depth())
    assert deepest == 1
    assert len(runs) > 2 * 60, "it went on trying"


def waits(count: int, clock: FakeTime, reopen: Callable[[], None] = lambda: None) -> list[float]:
    """Let `count` retries become due; returns how long each waited."""
    found: list[float] = []
    while len(found) < count:
        run_next()
        [later] = the_huey.scheduled()
        assert later.eta is not None
        found.append((later.eta - clock.now).total_seconds())
        reopen()
        clock.now = later.eta
        the_huey.enqueue_due()
    return found


def assert_grows_to(found: list[float], nominal: list[float]) -> None:
    assert all(0.5 * expected <= wait <= expected for wait, expected in zip(found, nominal, strict=True)), found


NOMINAL = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_retries_wait_longer_up_to_a_cap(queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime) -> None:
    declare("look", unavailable, retry=RETRY)()
    found = waits(10, clock)
    assert_grows_to(found, [float(value) for value in NOMINAL])
    assert len(set(found[6:])) > 1, "jitter: a fleet must not march in step"


def test_back_off_goes_on_after_a_restart(
    queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime, path: Path
) -> None:
    declare("look", unavailable, retry=RETRY)()

    def restart() -> None:
        the_huey.close()
        the_huey.open(f"sqlite://{path}")

    assert_grows_to(waits(10, clock, restart), [float(value) for value in NOMINAL])


def test_a_fresh_trigger_after_success_starts_with_the_short_wait(
    queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime
) -> None:
    failing = [True]

    def body() -> None:
        if failing[0]:
            raise Unavailable("no network")

    look = declare("look", body, retry=RETRY)
    look()
    waits(5, clock)
    failing[0] = False
    run_next()
    assert depth() == 0
    failing[0] = True
    look()
    assert_grows_to(waits(1, clock), [1.0])


def test_tasks_with_arguments_retry_each_on_its_own(
    queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime
) -> None:
    work = declare("work", unavailable, retry=RETRY)
    for number in range(3):
        work(number)
        run_next()
    assert queue.scheduled_count() == 3
    assert sorted(later.args for later in queue.scheduled()) == [(0,), (1,), (2,)]


def test_refused_and_unavailable_without_retry_end_the_task(
    queue: GatewayHuey, declare: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise Refused("no such method")

    declare("refusing", refuse, retry=RETRY)()
    declare("looking", unavailable)()
    run_next()
    run_next()
    assert depth() == 0
    assert "refusing refused: no such method" in caplog.text


# --- poison ------------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


def poison(name: str, canary: Path) -> list[Any]:
    """Rows a hand, an older version or a broken disk could leave; `name` is a known task that takes one number."""
    good = {"id": "x", "name": name, "retries": 0, "retry_delay": 0, "retry_backoff": 0, "args": [1], "kwargs": {}}
    text = orjson.dumps(good)
    deep = b"[" * 400 + b"]" * 400
    return [
        b"",
        b"\x00\x01\xff garbage",
        text[:-7],
        pickle.dumps(Bomb(canary)),
        b" " * (2 << 20),
        orjson.dumps({**good, "args": ["x" * (2 << 20)]}),
        orjson.dumps({**good, "name": "tasks.gone.by_now"}),
        orjson.dumps({**good, "args": ["not", "one", "number"]}),
        orjson.dumps({**good, "kwargs": {"unknown": 1}}),
        orjson.dumps({**good, "kwargs": {"task": 1}}),
        text.replace(b"[1]", deep),
        "a text where bytes belong",
        7,
    ]


def test_poison_is_dropped_loudly_and_the_next_task_runs(
    queue: GatewayHuey, declare: Callable[..., Any], path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    canary = tmp_path / "canary"
    ran: list[int] = []

    def body(number: int) -> None:
        assert isinstance(number, int)
        ran.append(number)

    work = declare("work", body)
    registered = next(key for key in queue._registry._registry if key.endswith(".work"))
    rows = poison(registered, canary)
    for number, row in enumerate(rows):
        insert(path, row)
        work(number)
        caplog.clear()
        while queue.lanes[Lane.WORK].queue_size():
            run_next()
        healthy = [value for value in ran if value == number]
        assert healthy, f"row {number}: the task behind it did not run"
        said = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert said or ran.count(1) > 1, f"row {number} vanished without a word"
    assert not canary.exists()
    assert depth() == 0


def test_poison_in_the_schedule_is_dropped(queue: GatewayHuey, path: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for row in (b"", b"garbage", pickle.dumps(Bomb(canary))):
            connection.execute("insert into schedule (queue, data, timestamp) values ('teg-work', ?, 0)", (row,))
    queue.enqueue_due()
    assert depth() == 0
    assert not canary.exists()


# --- a queue that fails ------------------------------------------------------------------------------------


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process writes for a long time."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield
        connection.execute("rollback")


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch, path: Path) -> Iterator[GatewayHuey]:
    monkeypatch.setattr("tasks.storage.LOCK_WAIT_S", 0.0)
    the_huey.open(f"sqlite://{path}")
    the_huey.tended = True
    yield the_huey
    the_huey.close()


def test_what_cannot_be_queued_runs_from_memory(
    no_patience: GatewayHuey, declare: Callable[..., Any], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[Any] = []
    look, work = declare("look", lambda: ran.append("look")), declare("work", ran.append)
    with held(path):
        for number in range(3):
            look()
            work(number)
        with pytest.raises(Unavailable, match="locked"):
            no_patience.enqueue_due()
        while len(no_patience._kept):
            run_next()
        assert sorted(map(str, ran)) == ["0", "1", "2", "look"]
    no_patience.enqueue_due()
    assert no_patience.pending_count() == 0, "and nothing of it again"
    assert caplog.text.count("trying again until it is back") == 1, "said once, not for every task"
    assert caplog.text.count("the queue is back") == 1


def test_calls_come_before_others_from_memory_too(
    no_patience: GatewayHuey, declare: Callable[..., Any], path: Path
) -> None:
    ran: list[int] = []
    work = declare("work", ran.append)
    with held(path):
        for number in (1, 2, 3):
            task = work.s(number)
            task.priority = 100 if number == 2 else 0
            no_patience.enqueue(task)
        while len(no_patience._kept):
            run_next()
    assert ran == [2, 1, 3]


def test_a_queue_that_can_be_read_but_not_written_is_not_back(
    no_patience: GatewayHuey, declare: Callable[..., Any], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk."""
    work = declare("work", lambda number: None)
    with held(path):
        work(1)
        before = caplog.text.count("the queue is back")
        with pytest.raises(Unavailable):
            no_patience.enqueue_due()
        assert caplog.text.count("the queue is back") == before


def test_when_the_queue_is_back_the_timetable_starts_anew(
    no_patience: GatewayHuey, declare: Callable[..., Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that comes back may have come back empty, and whatever was queued is gone."""
    every = Every(3600, declare("look", lambda: None))
    monkeypatch.setattr(no_patience, "timetable", (every,))
    every.tick(1000)
    run_next()
    with held(path), pytest.raises(Unavailable) as raised:
        no_patience.enqueue_due()
    no_patience.storage_failed(raised.value)
    every.tick(1001)
    assert depth() == 0, "not due"
    no_patience.enqueue_due()
    every.tick(1002)
    assert depth() == 1


def test_once_trouble_is_known_producers_do_not_wait_for_it_again(
    no_patience: GatewayHuey, declare: Callable[..., Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The MQTT network thread is one of them: each call could cost it seconds."""
    look, work = declare("look", lambda: None), declare("work", lambda number: None, Lane.RPC)
    with held(path):
        work(1)
        touched: list[Any] = []
        for storage in no_patience.lanes.values():
            monkeypatch.setattr(storage, "enqueue", lambda *arguments: touched.append(arguments))
        work(2)
        look()
        assert touched == []
    assert len(no_patience._kept) == 3


def test_another_process_is_told_that_it_cannot_queue(
    no_patience: GatewayHuey, declare: Callable[..., Any], path: Path
) -> None:
    """It has no scheduler: what it kept in memory would be lost without a word."""
    no_patience.tended = False
    with held(path):
        for wrapper in (declare("look", lambda: None), declare("look2", lambda: None)):
            with pytest.raises(Unavailable, match="locked"):
                wrapper()
    declare("look3", lambda: None)()
    assert no_patience.pending_count() == 1


def test_a_kept_call_still_expires(
    no_patience: GatewayHuey, declare: Callable[..., Any], path: Path, clock: FakeTime
) -> None:
    ran: list[int] = []
    call = declare("call", ran.append, expires_s=10)
    with held(path):
        call(1)
    clock.advance(11)
    no_patience.enqueue_due()
    run_next()
    assert ran == []


def test_memory_stays_bounded_while_the_queue_is_away(
    no_patience: GatewayHuey, declare: Callable[..., Any], path: Path
) -> None:
    look, work = declare("look", lambda: None), declare("work", lambda number: None)
    with held(path):
        for number in range(MAX_KEPT):
            work(number)
        with pytest.raises(Unavailable):
            work(-1)
        look()
        assert len(no_patience._kept) == MAX_KEPT + 1


def test_a_retry_that_cannot_be_scheduled_is_kept(
    no_patience: GatewayHuey, declare: Callable[..., Any], path: Path, clock: FakeTime
) -> None:
    look = declare("look", unavailable, retry=RETRY)
    queued = look.s()
    with held(path):
        no_patience.execute(queued)
    no_patience.enqueue_due()
    assert no_patience.pending_count() == 0, "not yet"
    clock.advance(1)
    no_patience.enqueue_due()
    assert no_patience.pending_count() == 1


def test_a_worker_survives_a_queue_it_cannot_read(
    queue: GatewayHuey, declare: Callable[..., Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = threading.Event()
    look = declare("look", ran.set, Lane.RPC)
    broken = threading.Event()
    monkeypatch.setattr(huey_app, "DOWN_WAIT_S", 0.01)
    real = queue.lanes[Lane.RPC].dequeue
    failures = iter(range(5))

    def dequeue() -> bytes | None:
        if next(failures, None) is not None:
            broken.set()
            raise sqlite3.OperationalError("disk I/O error")
        return real()

    monkeypatch.setattr(queue.lanes[Lane.RPC], "dequeue", dequeue)
    with Workers(scheduler=False):
        look()
        assert ran.wait(20)
    assert broken.is_set()


def test_the_scheduler_survives_a_queue_it_cannot_read(
    queue: GatewayHuey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ticks: list[float] = []
    failures = iter(range(2))
    real = queue.read_schedule

    def read_schedule(*arguments: Any) -> Any:
        if next(failures, None) is not None:
            raise sqlite3.OperationalError("database or disk is full")
        return real(*arguments)

    monkeypatch.setattr(queue, "read_schedule", read_schedule)
    monkeypatch.setattr(queue, "timetable", (SimpleNamespace(tick=ticks.append, make_due=lambda: None),))
    with Workers() as workers:
        wait_until(lambda: "the queue is back" in caplog.text, 20, "the scheduler went on")
        assert workers.consumer.scheduler.is_alive()
    assert len(ticks) >= 5, "the timetable goes on while the queue is away"
    assert caplog.text.count("disk is full") == 1


def test_a_queue_that_can_be_read_and_not_written_is_not_back(
    queue: GatewayHuey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk. Said once at the beginning, once at the end."""
    looks = iter(range(6))
    real = queue.storage.put_data

    def put_data(*arguments: Any) -> None:
        if next(looks, None) is not None:
            raise sqlite3.OperationalError("database or disk is full")
        real(*arguments)

    monkeypatch.setattr(queue.storage, "put_data", put_data)
    queue.storage_failed(Unavailable("the queue cannot be used now: database or disk is full"))
    for _ in range(6):
        with pytest.raises(Unavailable):
            queue.enqueue_due()
    assert "the queue is back" not in caplog.text
    queue.enqueue_due()
    queue.enqueue_due()
    assert caplog.text.count("trying again") == caplog.text.count("the queue is back") == 1


def test_a_call_that_broke_in_an_outage_that_is_over_is_no_news(
    queue: GatewayHuey, declare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker hangs on a dying connection; when it is told, the others have met the outage and seen its end."""
    look = declare("look", lambda: None)
    real = queue.storage.enqueue
    outages = iter(["one"])

    def enqueue(*arguments: Any) -> None:
        for _ in outages:
            queue.storage_failed(Unavailable("the queue cannot be used now: the server was shut down"))
            queue.enqueue_due()
            raise sqlite3.OperationalError("disk I/O error")
        real(*arguments)

    monkeypatch.setattr(queue.storage, "enqueue", enqueue)
    look()
    assert caplog.text.count("trying again") == caplog.text.count("the queue is back") == 1
    assert queue.pending_count() == 1


def test_a_line_of_the_timetable_that_cannot_be_judged_now_holds_up_no_other(
    queue: GatewayHuey, declare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = threading.Semaphore(0)
    look = declare("look", lambda: ran.release())

    def cannot_tell() -> bool:
        raise Unavailable("the services are not open")

    monkeypatch.setattr(queue, "timetable", (Every(0.1, look, when=cannot_tell), Every(0.1, look)))
    with Workers() as workers:
        for _ in range(3):
            assert ran.acquire(timeout=20)
        assert workers.consumer.scheduler.is_alive()


def test_a_removed_queue_is_replaced_and_the_timetable_starts_anew(
    queue: GatewayHuey, declare: Callable[..., Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = threading.Semaphore(0)
    look = declare("look", lambda: ran.release())
    monkeypatch.setattr(queue, "timetable", (Every(3600, look),))
    with Workers():
        assert ran.acquire(timeout=20), "at the start"
        remove_tree(path.parent)
        assert ran.acquire(timeout=20), "again, because what was queued may be lost"
        wait_until(path.exists, 20, "a new queue file")
        look()
        assert ran.acquire(timeout=20)


def test_a_file_damaged_at_the_start_is_moved_aside(path: Path, declare: Callable[..., Any]) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database" * 100)
    look = declare("look", lambda: None)
    the_huey.open(f"sqlite://{path}")
    look()
    assert the_huey.pending_count() == 1
    the_huey.close()
    [aside] = [found for found in path.parent.iterdir() if "damaged" in found.name]
    assert aside.read_bytes().startswith(b"this is not a database")


def test_a_file_damaged_while_running_is_moved_aside(
    queue: GatewayHuey, declare: Callable[..., Any], path: Path
) -> None:
    ran = threading.Semaphore(0)
    look = declare("look", lambda: ran.release())
    look()
    run_next()
    assert ran.acquire(timeout=5)
    for storage in queue.lanes.values():  # so that the next look reads the file and not a cache
        storage.close()
    with path.open("r+b") as file:
        file.write(b"X" * path.stat().st_size)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with Workers():
        wait_until(lambda: [f for f in path.parent.iterdir() if "damaged" in f.name], 20, "moved aside")
        look()
        assert ran.acquire(timeout=20)


def test_nothing_but_damage_moves_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    the_huey.open(f"sqlite://{path}")
    inode = path.stat().st_ino
    the_huey.storage_failed(Unavailable("disk full"))
    the_huey.tend_storage()
    assert path.stat().st_ino == inode
    the_huey.close()


# --- workers, services, timetable, immediate mode ----------------------------------------------------------


def test_a_worker_killed_by_a_task_comes_back_on_its_own_lane(queue: GatewayHuey, declare: Callable[..., Any]) -> None:
    ran = threading.Event()

    def leave(number: int) -> None:
        raise SystemExit(3)

    leaving, staying = declare("leave", leave, Lane.RPC), declare("stay", lambda number: ran.set(), Lane.RPC)
    with Workers(scheduler=False) as workers:
        leaving(1)
        threads = workers.consumer.worker_threads
        wait_until(lambda: any(not thread.is_alive() for _, thread in threads), 20, "the worker died")
        staying(2)
        workers.consumer.check_worker_health()
        assert ran.wait(20)


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


# --- trouble ------------------------------------------------------------------------------------------------


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
