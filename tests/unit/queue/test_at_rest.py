"""What a gateway at rest does not do: import what nobody asked for, wake workers for others' tasks, write triggers."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tasks.huey_app import GatewayHuey
from tasks.in_memory import WakeUp, WakingPipe
from tasks.lanes import Lane
from tasks.timetable import Every

ROOT = Path(__file__).resolve().parents[3]
#: What some settings need, and most do not.
ON_DEMAND = ("redis", "psycopg", "docker", "requests", "rich", "trustme", "starlette", "hypothesis", "pytest")


def test_starting_loads_no_library_that_only_some_settings_need() -> None:
    code = f"import sys, gateway; print([name for name in {ON_DEMAND} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_task_wakes_one_worker_of_its_lane() -> None:
    wake_up = WakeUp()
    woken: list[Lane] = []
    asleep = threading.Semaphore(0)

    def worker(lane: Lane, seen: int) -> None:
        asleep.release()
        wake_up.wait(lane, seen, 60.0)
        woken.append(lane)

    lanes = (Lane.RPC, Lane.WORK, Lane.OTA)
    threads = [threading.Thread(target=worker, args=(lane, wake_up.count(lane))) for lane in lanes]
    for thread in threads:
        thread.start()
        assert asleep.acquire(timeout=20)
    wake_up.notify(Lane.WORK)
    threads[1].join(20)
    assert woken == [Lane.WORK]
    wake_up.notify_all()
    for thread in threads:
        thread.join(20)
    assert sorted(woken) == sorted(lanes)


def test_the_timetable_writes_nothing_into_the_queue_file(tmp_path: Path) -> None:
    huey = GatewayHuey()
    ran: list[str] = []
    look: Any = huey.task(name="look", lane=Lane.WORK, context=False, retry_policy=None, expires=15)(
        lambda: ran.append("look")
    )
    huey.open(f"sqlite://{tmp_path}/huey.db")
    try:
        huey.tended = True
        Every(1, look).tick(1.0, huey.trigger)
        assert huey.lanes[Lane.WORK].queue_size() == 0
        huey.serve(Lane.WORK)
        task = huey.dequeue()
        assert task is not None and task.expires_resolved is not None, "a late one is dropped as ever"
        huey.execute(task)
        assert ran == ["look"]
    finally:
        huey.close()


def test_without_a_scheduler_of_its_own_a_process_queues_its_triggers(tmp_path: Path) -> None:
    huey = GatewayHuey()
    look: Any = huey.task(name="look", lane=Lane.WORK, context=False, retry_policy=None)(lambda: None)
    huey.open(f"sqlite://{tmp_path}/huey.db")
    try:
        huey.trigger(look)
        assert huey.lanes[Lane.WORK].queue_size() == 1
    finally:
        huey.close()


def test_where_the_kernel_does_not_tell_the_queue_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.storage.INotify", _no_inotify)
    huey = GatewayHuey()
    huey.open(f"sqlite://{tmp_path}/huey.db")
    try:
        assert huey.next_look() == (0.5,)
    finally:
        huey.close()


def _no_inotify() -> None:
    raise OSError("too many open files")


def test_a_pipe_wakes_before_during_and_not_after() -> None:
    pipe = WakingPipe()
    pipe.wake()  # nobody can be asleep yet
    pipe.open()
    try:
        assert not pipe.wait(0.0)
        pipe.wake()
        assert pipe.wait(60.0)
        assert not pipe.wait(0.0)
    finally:
        pipe.close()
    pipe.wake()
