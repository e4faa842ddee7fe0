"""Looks after our own threads: one that is stuck is said, with where it stands, and the process ends."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from teg.domain.liveness import CHECK_S, Liveness, Pulse, StateOf

logger = logging.getLogger("gateway.liveness")

#: The service manager need not wait for the first word.
FIRST_CHECK_S = 2.0
#: A graceful stop takes up to 30 s. With a thread that is stuck it may not come to its end.
STOP_S = 40.0


class Process(Protocol):
    """The process that we are."""

    def stacks(self) -> Mapping[int, tuple[str, str]]:
        """Thread identity → its name and where it stands, the innermost call last."""
        ...

    def end_gracefully(self) -> None: ...

    def end_at_once(self) -> None: ...


class SelfWatch:
    """One thread. `alive` is called after checks that found nothing stuck, and some work done since the last one."""

    def __init__(
        self, liveness: Liveness, state_of: StateOf, process: Process, alive: Callable[[], None], stop_s: float = STOP_S
    ) -> None:
        self._liveness = liveness
        self._state_of = state_of
        self._process = process
        self._alive = alive
        self._stop_s = stop_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="self-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once. A stop that was caused by something stuck is seen to its end all the same."""
        self._stopping.set()

    def check(self) -> bool:
        """True when something is stuck; the process is ending then."""
        if not (stuck := self._liveness.check(self._state_of)):
            if self._liveness.proven():
                self._alive()
            return False
        self._say(stuck)
        self._process.end_gracefully()
        return True

    def _run(self) -> None:
        pause_s = FIRST_CHECK_S
        while not self._stopping.wait(pause_s):
            pause_s = CHECK_S
            try:
                if self.check():
                    break
            except Exception:
                logger.exception("our own threads cannot be looked after now; trying again")
        else:
            return
        threading.Event().wait(self._stop_s)
        self._process.end_at_once()

    def _say(self, stuck: list[Pulse]) -> None:
        stacks = self._process.stacks()
        for pulse in stuck:
            _, place = stacks.get(pulse.ident, ("", "its thread has ended" if pulse.ident else "by no thread"))
            what = (pulse.name, pulse.what, place)
            logger.error("stuck: %s, since '%s'; the gateway ends, to be started anew. It stands at: %s", *what)
        shown = {pulse.ident for pulse in stuck}
        for ident, (name, place) in stacks.items():
            if ident not in shown:
                logger.info("thread %s: %s", name, place)
