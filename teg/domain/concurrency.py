"""What threads need from each other: a signal that work is waiting, and work that runs in one thread at a time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Bell:
    """At most one thread answers at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._answering: object | None = None
        self._rung = False

    def ring(self) -> bool:
        """True when a running drainer has heard it; False: nobody is there, enqueue the task."""
        with self._changed:
            self._rung = True
            self._changed.notify_all()
            return self._answering is not None

    @contextmanager
    def answering(self) -> Iterator[bool]:
        """Be the one who answers; yields False (and rings the other) when somebody already does."""
        visit = object()
        with self._changed:
            busy = self._answering is not None
            if not busy:
                self._answering, self._rung = visit, False
        if busy:
            self.ring()
            yield False
            return
        try:
            yield True
        finally:
            with self._changed:
                if self._answering is visit:
                    self._answering = None

    def wait(self, timeout_s: float) -> bool:
        """Wait for a ring. False: none came, and from this moment on `ring` answers False (no ring falls between)."""
        with self._changed:
            rung = self._changed.wait_for(lambda: self._rung, timeout_s)
            self._rung = False
            if not rung:
                self._answering = None
            return rung

    def pause(self, timeout_s: float) -> None:
        """Wait for a ring or the time-out and go on answering either way."""
        with self._changed:
            self._changed.wait_for(lambda: self._rung, timeout_s)
            self._rung = False


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
