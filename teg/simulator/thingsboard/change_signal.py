"""Lets threads wait for something to happen on the server's loop, at no cost while nobody waits."""

import threading
import time
from collections.abc import Callable


class ChangeSignal:
    """`notify` on the loop after every event; `wait_until` in any other thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._notifications = 0
        self._waiting = 0

    def notify(self) -> None:
        """Loop thread only. The count goes up before the look at the waiters, so none can miss it."""
        self._notifications += 1
        if self._waiting:
            with self._condition:
                self._condition.notify_all()

    def wait_until(self, predicate: Callable[[], object], timeout_s: float) -> bool:
        """Evaluate `predicate` in this thread, now and after every notification; False when the time is over."""
        deadline = time.monotonic() + timeout_s
        with self._condition:
            self._waiting += 1
        try:
            return self._wait(predicate, deadline)
        finally:
            with self._condition:
                self._waiting -= 1

    def _wait(self, predicate: Callable[[], object], deadline: float) -> bool:
        while True:
            seen = self._notifications
            if predicate():
                return True
            with self._condition:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if self._notifications == seen:
                    self._condition.wait(left)
