"""What counts as a trigger, and how workers of a lane are woken."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks import in_memory
from tasks.in_memory import Triggers, WakeUp, is_trigger
from tasks.lanes import Lane
from tasks.storage import QueueFile

ROOT = Path(__file__).resolve().parents[3]


# --- triggers ----------------------------------------------------------------------------------------------


def task(*args: Any, name: str = "publish_records", **kwargs: Any) -> Any:
    return SimpleNamespace(name=name, args=args, kwargs=kwargs)


def test_a_trigger_is_a_task_without_arguments() -> None:
    assert is_trigger(task())
    assert not is_trigger(task(1))
    assert not is_trigger(task(a=1))


def test_a_trigger_is_queued_until_a_worker_takes_it() -> None:
    known = Triggers()
    known.queued(task())
    assert known.is_queued(task())
    assert not known.is_queued(task(name="archive_records"))
    known.taken(task())
    assert not known.is_queued(task())


def test_one_retry_a_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(in_memory, "time", SimpleNamespace(monotonic=lambda: now[0]))
    known = Triggers()
    assert known.may_retry(task(), 30.0)
    assert not known.may_retry(task(), 30.0)
    assert known.may_retry(task(name="archive_records"), 30.0)
    assert known.may_retry(task(1), 30.0), "tasks with arguments are each their own"
    known.retry_came(task())
    assert known.may_retry(task(), 30.0)


def test_a_retry_lost_with_its_storage_does_not_end_retrying(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(in_memory, "time", SimpleNamespace(monotonic=lambda: now[0]))
    known = Triggers()
    assert known.may_retry(task(), 30.0)
    now[0] += 30.0 + in_memory.LOST_AFTER_S - 1
    assert not known.may_retry(task(), 30.0)
    now[0] += 2
    assert known.may_retry(task(), 30.0)


# --- lanes -------------------------------------------------------------------------------------------------


def test_a_notification_before_the_wait_is_not_missed() -> None:
    wake_up = WakeUp()
    seen = wake_up.count(Lane.RPC)
    wake_up.notify(Lane.RPC)
    wake_up.wait(Lane.RPC, seen, 3600.0)  # would not return in time


def test_a_notification_wakes_its_own_lane_only() -> None:
    wake_up = WakeUp()
    seen = {lane: wake_up.count(lane) for lane in Lane}
    wake_up.notify(Lane.RPC)
    assert [lane for lane in Lane if wake_up.count(lane) != seen[lane]] == [Lane.RPC]
    wake_up.notify_all()
    assert all(wake_up.count(lane) != seen[lane] for lane in Lane)


def test_importing_the_gateway_touches_no_disk_and_no_network(tmp_path: Path) -> None:
    """`huey_consumer`, the console and the tests import it; only running it may open anything."""
    code = (
        "import sys\n"
        "touched = []\n"
        "def hook(event, args):\n"
        "    if event == 'sqlite3.connect' or event in ('socket.connect', 'socket.getaddrinfo'):\n"
        "        touched.append((event, str(args)))\n"
        "    if event == 'open' and isinstance(args[2], int) and args[2] & 3 and '__pycache__' not in str(args[0]):\n"
        "        touched.append((event, str(args)))\n"
        "    if event in ('os.mkdir', 'subprocess.Popen', 'os.rename', 'os.remove'):\n"
        "        touched.append((event, str(args)))\n"
        "sys.addaudithook(hook)\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import gateway, tasks.periodic\n"
        "print(touched)\n"
    )
    command = [sys.executable, "-B", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_queue_file_class_never_makes_huey_sleep() -> None:
    assert QueueFile.blocking
