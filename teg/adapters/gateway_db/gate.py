"""Who may use the file: many threads at once, or one thread alone that replaces it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """`using` is re-entrant; `alone` waits until nobody uses the file and keeps everybody else out meanwhile."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._owner: int | None = None
        self._local = threading.local()

    @contextmanager
    def using(self) -> Iterator[bool]:
        """Yields True for the outermost use of this thread, outside of `alone`."""
        depth = getattr(self._local, "depth", 0)
        if depth == 0:
            self._enter()
        self._local.depth = depth + 1
        try:
            yield depth == 0 and self._owner != threading.get_ident()
        finally:
            self._local.depth = depth
            if depth == 0:
                self._leave()

    @property
    def alone_here(self) -> bool:
        """True in the thread that is inside of `alone`."""
        return self._owner == threading.get_ident()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Never inside of `using`: it would wait for itself."""
        with self._changed:
            self._changed.wait_for(lambda: self._owner is None)
            self._owner = threading.get_ident()
            self._changed.wait_for(lambda: self._users == 0)
        try:
            yield
        finally:
            with self._changed:
                self._owner = None
                self._changed.notify_all()

    def _enter(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._owner in (None, threading.get_ident()))
            self._users += 1

    def _leave(self) -> None:
        with self._changed:
            self._users -= 1
            self._changed.notify_all()
