"""When to look again: one planned moment that a thread waits for and every turn plans anew."""

import threading

from teg.domain.ports import Clock


class NextCheck:
    """A moment on the monotonic clock; the first one is now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due_s: float | None = clock.monotonic_s()

    def plan_in(self, seconds: float) -> None:
        with self._changed:
            self._due_s = self._clock.monotonic_s() + seconds
            self._changed.notify_all()

    def left_s(self) -> float | None:
        """Seconds until the planned look, at least 0; None when none is planned."""
        with self._changed:
            return self._left_s()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the planned moment and take it: True once a plan; False when it did not come in `timeout_s`."""
        end_s = self._clock.monotonic_s() + timeout_s
        with self._changed:
            while (left_s := self._left_s()) != 0:
                wait_s = end_s - self._clock.monotonic_s()
                if wait_s <= 0:
                    return False
                self._changed.wait(wait_s if left_s is None else min(wait_s, left_s))
            self._due_s = None
            return True

    def _left_s(self) -> float | None:
        return None if self._due_s is None else max(0.0, self._due_s - self._clock.monotonic_s())
