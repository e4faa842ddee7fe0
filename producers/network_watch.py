"""Hears that the network came back, and tells the session, which may be waiting for its next try."""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger("gateway.network")


class Changes(Protocol):
    def wait(self) -> bool: ...

    def close(self) -> None: ...

    def release(self) -> None: ...


class NetworkWatch:
    """One thread; idle it costs nothing."""

    def __init__(self, changes: Changes, came_up: Callable[[], None]) -> None:
        self._changes = changes
        self._came_up = came_up
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="network-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._changes.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._changes.wait():
                    self._came_up()
            except Exception:
                logger.exception("the network watch goes on")
                self._stopping.wait(5.0)
        self._changes.release()
