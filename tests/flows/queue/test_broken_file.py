"""A queue file that is held, full, removed or damaged: what cannot be queued runs from memory, and the file heals."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import huey_app
from tasks.huey_app import GatewayHuey
from tasks.in_memory import MAX_KEPT
from tasks.lanes import Lane
from tasks.queue import huey as the_huey
from tasks.timetable import Every
from teg.domain.errors import Unavailable
from tests.support.queue_file import RETRY, FakeTime, Workers, depth, run_next, unavailable
from tests.support.running import remove_tree, wait_until


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
        while run_next():
            pass
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
        while run_next():
            pass
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
    assert no_patience.pending_count() == 3, "all of them in memory"


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
    assert no_patience.pending_count() == MAX_KEPT + 1


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
    entry = SimpleNamespace(name="tick", tick=lambda now_s, run: ticks.append(now_s), make_due=lambda: None)
    monkeypatch.setattr(queue, "timetable", (entry,))
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
