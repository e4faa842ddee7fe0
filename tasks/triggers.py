"""What keeps the queue short: a trigger that already waits, or whose retry already waits, adds nothing."""

import time
from typing import Any, Protocol

#: A retry that has not come back this long after its time was lost with its storage; another one may be made.
LOST_AFTER_S = 60.0


class Task(Protocol):
    """As much of Huey's task as is looked at here."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def is_trigger(task: Task) -> bool:
    """A task without arguments only says "look": once is as good as a hundred times."""
    return not task.args and not task.kwargs


class Triggers:
    """Names of the triggers this process has queued, and when the one retry of each is due (monotonic seconds)."""

    def __init__(self) -> None:
        self._queued: set[str] = set()
        self._retry_due_s: dict[str, float] = {}

    def queued(self, task: Task) -> None:
        self._queued.add(task.name)

    def is_queued(self, task: Task) -> bool:
        return task.name in self._queued

    def taken(self, task: Task) -> None:
        """From here on a new trigger must be queued again: this run may have looked already."""
        self._queued.discard(task.name)

    def may_retry(self, task: Task, delay_s: float) -> bool:
        """One waiting retry a trigger is enough: without this each sweep of a long outage would leave one behind."""
        if not is_trigger(task):
            return True
        now_s = time.monotonic()
        due_s = self._retry_due_s.get(task.name)
        if due_s is not None and now_s < due_s + LOST_AFTER_S:
            return False
        self._retry_due_s[task.name] = now_s + delay_s
        return True

    def retry_came(self, task: Task) -> None:
        self._retry_due_s.pop(task.name, None)
