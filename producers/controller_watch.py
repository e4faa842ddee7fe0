"""Watches the controller: what the engine reports, and the next planned look; each enqueues a supervision."""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from teg.domain.errors import Unavailable

logger = logging.getLogger("gateway.supervision")

#: A quiet engine is asked anew after this; between two questions nothing is missed.
WATCH_S = 60.0
#: Pause after the engine could not be watched. The planned look finds out what is wrong with it.
RETRY_S = 5.0
#: A controller that crashes as soon as it starts makes three events in a moment.
COALESCE_S = 0.2


class Changes(Protocol):
    def wait_for_change(self, timeout_s: float) -> bool: ...


class NextLook(Protocol):
    def wait(self, timeout_s: float) -> bool: ...


class ControllerWatch:
    """`look` is called at once, after every change, and at every planned moment."""

    def __init__(self, changes: Changes, next_check: NextLook, look: Callable[[], None]) -> None:
        self._changes = changes
        self._next_look = next_check
        self._look = look
        self._stopping = threading.Event()
        self._watchable = True

    def start(self) -> None:
        for name, body in (("controller-events", self._wait_for_events), ("controller-clock", self._wait_for_plan)):
            threading.Thread(target=self._run, args=(body,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Returns at once; the threads end with their current wait, and hold nothing that needs closing."""
        self._stopping.set()

    def _run(self, body: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                body()
            except Exception:
                logger.exception("the controller cannot be watched now; trying again")
                self._stopping.wait(RETRY_S)

    def _wait_for_events(self) -> None:
        try:
            changed = self._changes.wait_for_change(WATCH_S)
        except Unavailable as reason:
            logger.debug("the engine cannot be watched now: %s", reason)
            self._watchable, news = False, self._watchable
            if news:  # it has just gone: that is a change, too
                self._look()
            self._stopping.wait(RETRY_S)
            return
        self._watchable = True
        if changed and not self._stopping.is_set():
            self._look()
            self._stopping.wait(COALESCE_S)

    def _wait_for_plan(self) -> None:
        self._next_look.wait(WATCH_S)
        if not self._stopping.is_set():  # also without a plan: its task may have been lost with the queue
            self._look()
