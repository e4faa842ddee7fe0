"""Notices writes to the controller's database by inotify: within milliseconds, and without a single idle wake-up."""

import logging
import time
from pathlib import Path

from inotify_simple import INotify, flags

logger = logging.getLogger("gateway.inbox")

_EVENTS = flags.MODIFY | flags.CREATE | flags.MOVED_TO | flags.DELETE | flags.DELETE_SELF | flags.MOVE_SELF
#: While the directory does not exist, or where inotify does not work, we look this often.
LOOK_AGAIN_S = 1.0


class InboxChanges:
    """`producers.controller_feed.Changes` for one database file (its -wal and -shm included)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inotify: INotify | None = None

    def wait(self, timeout_s: float) -> bool:
        """Return when the database was written to, or after the time-out. True: something changed."""
        if self._inotify is None:
            if self._watch():
                return True  # something may have been written before we watched
            time.sleep(min(timeout_s, LOOK_AGAIN_S))
            return False
        inotify = self._inotify
        events = inotify.read(timeout=int(timeout_s * 1000))
        if any(event.mask & (flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED) for event in events):
            self.close()
            return True
        return any(event.name.startswith(self._path.name) for event in events)

    def _watch(self) -> INotify | None:
        try:
            inotify = INotify()
        except OSError as error:
            logger.warning("inotify is not available (%s); looking every %.0f s instead", error, LOOK_AGAIN_S)
            return None
        try:
            inotify.add_watch(str(self._path.parent), _EVENTS)
        except OSError:
            inotify.close()
            return None
        self._inotify = inotify
        return inotify

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        self._inotify = None
