"""What the queue keeps in the memory of this process: whom to wake, what waits already, what it could not write, and
whose work fails. All of it may be lost: the sweep finds the work again."""

from __future__ import annotations

import datetime
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from tasks.lanes import Lane

#: A retry that has not come back this long after its time was lost with its storage; another one may be made.
LOST_AFTER_S = 60.0
#: Tasks with arguments; of triggers, one a name is enough.
MAX_KEPT = 200
#: Failures in a row.
TROUBLE_AT = 2


class WakingPipe:
    """Wakes one thread that sleeps in `wait`; also from a signal handler (`signal.set_wakeup_fd`)."""

    def __init__(self) -> None:
        self._read = self._write = -1

    def open(self) -> int:
        """Returns the descriptor that wakes."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return self._write

    def close(self) -> None:
        ends, self._read, self._write = (self._read, self._write), -1, -1
        for end in ends:
            os.close(end)

    def wait(self, timeout_s: float, *others: int) -> bool:
        """Until `wake` (True), the time-out, or something to be read at one of the `others`."""
        woken = self._read in select.select([self._read, *others], [], [], timeout_s)[0]
        if woken:
            os.read(self._read, 4096)
        return woken

    def wake(self) -> None:
        """Where nobody waits, this is nothing."""
        if self._write >= 0:
            with suppress(OSError):  # full, or closed at this moment
                os.write(self._write, b"\0")


class WakeUp:
    """Wakes one idle worker of a lane at once when this process enqueues; `notify_all` for everything else.

    A condition a lane: nobody is woken for what is not theirs, which at rest is most of what a gateway costs.
    """

    def __init__(self) -> None:
        self._changed = {lane: threading.Condition() for lane in Lane}
        self._notified = dict.fromkeys(Lane, 0)
        self.scheduler = WakingPipe()

    def count(self, lane: Lane) -> int:
        return self._notified[lane]

    def notify(self, lane: Lane) -> None:
        """One task more: a worker that is not asleep looks by itself before it falls asleep."""
        with self._changed[lane]:
            self._notified[lane] += 1
            self._changed[lane].notify()

    def notify_all(self) -> None:
        for lane in Lane:
            with self._changed[lane]:
                self._notified[lane] += 1
                self._changed[lane].notify_all()
        self.scheduler.wake()

    def wait(self, lane: Lane, seen: int, timeout_s: float) -> None:
        """Return when `lane` was notified since `seen` was read, or after the time-out."""
        with self._changed[lane]:
            self._changed[lane].wait_for(lambda: self._notified[lane] != seen, timeout_s)


class Task(Protocol):
    """As much of Huey's task as is looked at here."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def is_trigger(task: Task) -> bool:
    """A task without arguments only says "look": once is as good as a hundred times."""
    return not task.args and not task.kwargs


class Triggers:
    """What keeps the queue short: a trigger that already waits, or whose retry already waits, adds nothing.

    Names of the triggers this process has queued, and when the one retry of each is due (monotonic seconds).
    """

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


class KeptTasks:
    """Tasks that could not be queued run from memory: a full disk or a dead server must not silence the gateway.

    By lane, those with the highest priority first, else in their order; a retry waits for its time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, Any] = {}
        self._retries: dict[str, Any] = {}

    def add(self, task: Any) -> bool:
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

    def take(self, lane: Lane) -> Any:
        with self._lock:
            mine = [(key, task) for key, task in self._tasks.items() if task.lane == lane]
            if not mine:
                return None
            key, task = max(mine, key=lambda item: item[1].priority or 0)  # the first of those that are equal
            del self._tasks[key]
            return task

    def retries_due(self, now: datetime.datetime) -> list[Any]:
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


class Troubles:
    """What cannot do its work, and since when: said once when it begins and once when it ends, never in between.

    One failure is transient (a lock, a busy disk); the second in a row is trouble. By task; callable from any thread.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._reasons: dict[str, str] = {}
        self._change = self._told = 0

    def failed(self, task: str, reason: str) -> bool:
        """True for the first failure in a row."""
        with self._lock:
            self._failures[task] = self._failures.get(task, 0) + 1
            first, begins = self._failures[task] == 1, self._failures[task] == TROUBLE_AT
            if begins:
                self._change += 1
            if self._failures[task] >= TROUBLE_AT:
                self._reasons[task] = reason[:300]
        if begins:
            self._say(f"{task} cannot do its work: {reason}")
        return first

    def worked(self, task: str) -> None:
        if not self._failures.get(task):  # the usual case, without the lock
            return
        with self._lock:
            self._failures.pop(task, None)
            ended = self._reasons.pop(task, None)
            self._change += ended is not None
        if ended is not None:
            self._say(f"{task} does its work again")

    def current(self) -> dict[str, str]:
        """Task → why."""
        with self._lock:
            return dict(self._reasons)

    @property
    def untold(self) -> bool:
        return self._change != self._told

    def tell(self, report: Callable[[dict[str, str]], None]) -> None:
        """Hand the state to `report`; raises what it raises, and is `untold` then."""
        change = self._change
        report(self.current())
        self._told = change
