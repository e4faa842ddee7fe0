"""A queue on a real file, its workers as threads, and a clock that tests can move."""

import datetime
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huey.utils
import pytest

from tasks import in_memory
from tasks.consumer import GatewayConsumer
from tasks.lanes import Lane
from tasks.queue import huey as the_huey
from teg.domain.backoff import Backoff
from teg.domain.errors import Unavailable

ROOT = Path(__file__).resolve().parents[2]


RETRY = Backoff(first_s=1.0, cap_s=60.0)


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


class FakeTime:
    """Moves Huey's clock and our monotonic one together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = datetime.datetime(2026, 1, 1)
        self.start = self.now
        monkeypatch.setattr(huey.utils, "utcnow", lambda: self.now)
        monkeypatch.setattr(the_huey, "_get_timestamp", lambda: self.now)
        monkeypatch.setattr(in_memory, "time", SimpleNamespace(monotonic=self.elapsed_s))

    def elapsed_s(self) -> float:
        return (self.now - self.start).total_seconds()

    def advance(self, seconds: float) -> None:
        self.now += datetime.timedelta(seconds=seconds)
