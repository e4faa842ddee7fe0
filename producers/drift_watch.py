"""Makes the check of the remote files appear when it is due: every 30 s, sooner while a file is on trial."""

import logging
import threading
from collections.abc import Callable

from teg.domain.files.reconciler import Files

logger = logging.getLogger("gateway.files")

TICK_S = 1.0


class DriftWatch:
    """A thread that looks at the time once a second and enqueues; the work itself is a task."""

    def __init__(self, files: Files, check_files: Callable[[], object]) -> None:
        self._files = files
        self._check_files = check_files
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drift-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when no further check will be enqueued."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def tick(self) -> None:
        if self._files.take_due():
            self._check_files()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.tick()
            except Exception:
                logger.exception("the check of the remote files could not be enqueued")
            self._stop.wait(TICK_S)
