"""Tasks that could not be queued run from memory: a full disk or a dead server must not silence the gateway."""

from __future__ import annotations

import datetime
import threading
from typing import Any

from tasks.lanes import Lane
from tasks.triggers import is_trigger

Task = Any  # Huey's, which only the modules that bend it import

#: Tasks with arguments; of triggers, one a name is enough.
MAX_KEPT = 200


class KeptTasks:
    """By lane, those with the highest priority first, else in their order; a retry waits for its time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._retries: dict[str, Task] = {}

    def add(self, task: Task) -> bool:
        """False: too many are kept already. A task with a time of its own waits for it."""
        with self._lock:
            if not is_trigger(task) and len(self._tasks) + len(self._retries) >= MAX_KEPT:
                return False
            key = task.name if is_trigger(task) else task.id
            (self._tasks if task.eta is None else self._retries)[key] = task
            return True

    def waiting(self, lane: Lane) -> bool:
        with self._lock:
            return any(task.lane == lane for task in self._tasks.values())

    def take(self, lane: Lane) -> Task | None:
        with self._lock:
            mine = [(key, task) for key, task in self._tasks.items() if task.lane == lane]
            if not mine:
                return None
            key, task = max(mine, key=lambda item: item[1].priority or 0)  # the first of those that are equal
            del self._tasks[key]
            return task

    def retries_due(self, now: datetime.datetime) -> list[Task]:
        """Those whose time has come, without it; they are not kept any more."""
        with self._lock:
            due = {key: task for key, task in self._retries.items() if task.eta is None or task.eta <= now}
            for key, task in due.items():
                del self._retries[key]
                task.eta = None
        return list(due.values())

    def __len__(self) -> int:
        """Those that could run now."""
        return len(self._tasks)
