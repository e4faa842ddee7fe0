"""What threads need from each other: a signal that work is waiting, and work that runs in one thread at a time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class WorkSignal:
    """Between the one who notices work and the one thread that does it, the drainer.

    A drainer that has finished waits a little for more; while it does, new work needs no task in the queue. At one
    message a second this saves 4.2 kB of queue writes a message (docs/decisions/0003-bells-and-lingering.md).
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._drainer: object | None = None
        self._notified = False

    def notify(self) -> bool:
        """True when a running drainer has heard it; False: nobody is there, enqueue the task."""
        with self._changed:
            self._notified = True
            self._changed.notify_all()
            return self._drainer is not None

    @contextmanager
    def draining(self) -> Iterator[bool]:
        """Be the drainer; yields False (and notifies the other) when somebody already is."""
        visit = object()
        with self._changed:
            busy = self._drainer is not None
            if not busy:
                self._drainer, self._notified = visit, False
        if busy:
            self.notify()
            yield False
            return
        try:
            yield True
        finally:
            with self._changed:
                if self._drainer is visit:
                    self._drainer = None

    def wait(self, timeout_s: float) -> bool:
        """Wait to be notified. False: in vain, and from now on `notify` answers False (nothing falls between)."""
        with self._changed:
            notified = self._changed.wait_for(lambda: self._notified, timeout_s)
            self._notified = False
            if not notified:
                self._drainer = None
            return notified

    def pause(self, timeout_s: float) -> None:
        """Wait to be notified or for the time-out, and stay the drainer either way."""
        self.notified(timeout_s)

    def notified(self, timeout_s: float) -> bool:
        """`pause`; True when it was ended by a notification."""
        with self._changed:
            notified = self._changed.wait_for(lambda: self._notified, timeout_s)
            self._notified = False
            return notified


class SingleFlight:
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
