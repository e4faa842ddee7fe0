"""Work that two workers must not do at once, and that nobody should wait for either."""

import threading
from collections.abc import Callable


class OneAtATime:
    """Runs `work` in one thread at a time. A call during a run returns at once, and makes that run be repeated."""

    def __init__(self) -> None:
        self._running = threading.Lock()
        self._wanted = threading.Event()

    @property
    def wanted(self) -> bool:
        """True while work was asked for that no finished run has begun after."""
        return self._wanted.is_set()

    def want(self) -> None:
        """Note that the work is to be done, without doing it."""
        self._wanted.set()

    def run(self, work: Callable[[], None]) -> None:
        """Do `work` until nobody asked for it since its last beginning. What it raises is raised; it stays wanted."""
        self._wanted.set()
        # Looking again after the release closes the gap in which another caller found the lock still taken.
        while self._wanted.is_set() and self._running.acquire(blocking=False):
            try:
                self._wanted.clear()
                work()
            except BaseException:
                self._wanted.set()
                raise
            finally:
                self._running.release()
