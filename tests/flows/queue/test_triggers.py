"""Triggers coalesce, tasks with arguments do not; what has expired is dropped."""

import datetime
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import huey.utils

from tasks.huey_app import GatewayHuey
from tasks.lanes import Lane
from tests.support.queue_file import depth, run_next


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
