"""A doorbell between the one who notices work and the one thread that does it.

A drainer that has finished lingers a little for the next ring; while it does, new work needs no task in the queue.
At one message a second this saves 4.2 kB of queue writes a message (docs/decisions/0003-bells-and-lingering.md).
"""

import threading
from collections.abc import Iterator
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
