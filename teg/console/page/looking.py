"""One thread looks for all who watch: pictures on demand, one reading for the curves every ten seconds.

Nobody watches: a few counters are read every ten seconds, and nothing else happens. Many watch: they see the same
picture. Looking costs at most a tenth of the time, however long a look takes.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson

from teg.console.page.history import SAMPLE_S, History
from teg.console.page.picture import PageSources, picture
from teg.domain.errors import Refused, Unavailable

logger = logging.getLogger("gateway.page")

#: A picture is not older than this, or ten times as long as it took to make.
FRESH_S, SHARE = 1.0, 10
#: Whoever waits longer sees the last picture, and its age.
PATIENCE_S = 5.0
STOP_S = 5.0


class Looking:
    """`seen` may be called from any thread; the sources are only asked by one."""

    def __init__(self, sources: PageSources, now_s: Callable[[], float] = time.monotonic) -> None:
        self._sources = sources
        self._now_s = now_s
        self._history = History()
        self._changed = threading.Condition()
        self._wanted = False
        self._stopping = False
        self._seen: tuple[float, bytes] | None = None
        self._reading = threading.Lock()  #: guards the history
        self._fresh_s = FRESH_S
        self._thread = threading.Thread(target=self._run, name="page-looking", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(STOP_S)

    def seen(self) -> tuple[float, bytes]:
        """(age in seconds, the picture as JSON).

        Raises:
            Unavailable: there is none yet, and it takes long to make one.
        """
        asked_s = self._now_s()
        with self._changed:
            if self._seen is None or asked_s - self._seen[0] > self._fresh_s:
                self._wanted = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._wanted or self._stopping, PATIENCE_S)
            if self._seen is None:
                raise Unavailable("the gateway is busy; try again")
            return self._now_s() - self._seen[0], self._seen[1]

    def curves(self) -> bytes:
        with self._reading:
            return orjson.dumps(self._history.as_dict())

    def _run(self) -> None:
        sample_at_s = self._now_s()
        while not self._stopping:
            try:
                if (now_s := self._now_s()) >= sample_at_s:
                    sample_at_s = now_s + SAMPLE_S
                    self._sample(now_s)
                if self._is_wanted(max(0.0, sample_at_s - self._now_s())):
                    self._look()
            except Exception:
                logger.exception("the status page cannot be drawn")
                self._show(b'{"error": "the status page cannot be drawn, see the log"}', self._now_s())

    def _is_wanted(self, timeout_s: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._stopping, timeout_s)
            return self._wanted and not self._stopping

    def _sample(self, now_s: float) -> None:
        """A reading that cannot be had now leaves a gap in the curves; why is told by the status."""
        with suppress(Unavailable, Refused):
            tally, published = self._sources.tally(), self._sources.published()
            with self._reading:
                self._history.add(now_s, tally, *published)

    def _look(self) -> None:
        began_s = self._now_s()
        seen: dict[str, Any] = picture(self._sources)
        with suppress(Unavailable, Refused):
            seen["day"] = self._history.day(began_s, self._sources.tally())
        self._show(orjson.dumps(seen, option=orjson.OPT_NON_STR_KEYS), began_s)

    def _show(self, text: bytes, began_s: float) -> None:
        now_s = self._now_s()
        with self._changed:
            self._seen = (now_s, text)
            self._fresh_s = max(FRESH_S, SHARE * (now_s - began_s))
            self._wanted = False
            self._changed.notify_all()
