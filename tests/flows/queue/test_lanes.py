"""Lanes and wake-up on a real queue file: a busy lane delays no other, an enqueue wakes an idle worker."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tasks import huey_app
from tasks.huey_app import GatewayHuey
from tasks.lanes import WORKERS, Lane
from tasks.telemetry import archive_records
from tests.support.queue_file import ROOT, Workers
from tests.support.running import wait_until

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
