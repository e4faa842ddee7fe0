"""What cannot do its work, and since when: said once when it begins and once when it ends, never in between.

One failure is transient (a lock, a busy disk); the second in a row is trouble.
"""

import threading
from collections.abc import Callable

#: Failures in a row.
TROUBLE_AT = 2


class Troubles:
    """By task; callable from any thread."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._reasons: dict[str, str] = {}
        self._change = self._told = 0

    def failed(self, task: str, reason: str) -> None:
        with self._lock:
            self._failures[task] = self._failures.get(task, 0) + 1
            begins = self._failures[task] == TROUBLE_AT
            if begins:
                self._change += 1
            if self._failures[task] >= TROUBLE_AT:
                self._reasons[task] = reason[:300]
        if begins:
            self._say(f"{task} cannot do its work: {reason}")

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
