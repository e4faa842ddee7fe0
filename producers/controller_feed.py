"""Watches the controller's inbox and notifies the recorder: one thread, asleep until something is written."""

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from teg.domain.errors import Unavailable
from teg.domain.liveness import Liveness

logger = logging.getLogger("gateway.feed")

#: Pause after a notification: a controller that writes a thousand rows a second notifies 25 times, not 1,000.
COALESCE_S = 0.04
#: The event comes when a commit's pages are written, but its rows can be seen only after the fsync that follows. So
#: after a write we look again, with growing pauses, for as long as an SD card may take for that fsync.
LOOK_AGAIN_S = (0.002, 0.003, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
RETRY_S = 1.0
#: What the reason is, the inbox has a say in: it must not be able to fill our log by changing it.
MAX_CHANGES_SAID = 10
#: Net below the change detection, for file systems that do not tell.
LOOK_ANYWAY_S = 20.0


class Changes(Protocol):
    def wait(self, timeout_s: float) -> bool:
        """Return when the inbox was written to (True) or after the time-out, at the latest."""
        ...


class Rows(Protocol):
    def has_rows(self) -> bool: ...


class ControllerFeed:
    """`records_waiting` is called whenever there are rows to archive."""

    def __init__(
        self, changes: Changes, inbox: Rows, records_waiting: Callable[[], None], liveness: Liveness | None = None
    ) -> None:
        self._liveness = liveness or Liveness()
        self._changes = changes
        self._inbox = inbox
        self._records_waiting = records_waiting
        self._stopping = threading.Event()
        self._trouble = ""
        self._changes_said = 0
        self._thread = threading.Thread(target=self._run, name="controller-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; the thread ends with its current wait, and holds nothing that needs closing."""
        self._stopping.set()

    def _run(self) -> None:
        looks = 0
        pulse = self._liveness.watch("the watch of the inbox")
        while not self._stopping.is_set():
            try:
                pulse.note("looks into the inbox")
                if self._look():
                    self._stopping.wait(COALESCE_S)
                pause_s = LOOK_AGAIN_S[looks] if looks < len(LOOK_AGAIN_S) else LOOK_ANYWAY_S
                pulse.note("waits for the controller to write", pause_s)
                looks = 0 if self._changes.wait(pause_s) else min(looks + 1, len(LOOK_AGAIN_S))
            except Exception:
                logger.exception("the inbox cannot be watched now; trying again")
                self._stopping.wait(RETRY_S)
        self._liveness.forget(pulse)

    def _look(self) -> bool:
        try:
            found = self._inbox.has_rows()
        except Unavailable as reason:
            self._say(str(reason))
            self._stopping.wait(RETRY_S)
            return False
        self._say("")
        if found:
            self._records_waiting()
        return found

    def _say(self, trouble: str) -> None:
        """Once when it begins, once when it is over, and when it changes: at most `MAX_CHANGES_SAID` times."""
        if trouble and trouble != self._trouble and self._changes_said < MAX_CHANGES_SAID:
            self._changes_said += 1
            logger.warning("the inbox cannot be read now: %s", trouble)
        elif self._trouble and not trouble:
            self._changes_said = 0
            logger.warning("the inbox can be read again")
        self._trouble = trouble
