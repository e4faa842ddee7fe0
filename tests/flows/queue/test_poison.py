"""A row of the queue that is no task of ours is dropped loudly, and the next task runs."""

import logging
import os
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from tasks.huey_app import GatewayHuey
from tasks.lanes import Lane
from tests.support.queue_file import depth, insert, run_next


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
