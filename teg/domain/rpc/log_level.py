"""The log level, changed from afar and taken back by itself."""

import threading
from collections.abc import Callable

from teg.domain.ports import Clock


class LogLevel:
    """Not persisted: a restart brings back the configured level."""

    def __init__(self, apply: Callable[[str], None], configured: str, clock: Clock) -> None:
        self._apply = apply
        self._configured = configured
        self._clock = clock
        self._back_at_s: float | None = None
        self._lock = threading.Lock()
        self.current = configured

    def set(self, level: str, minutes: int | None) -> None:
        """Without `minutes` until the next restart."""
        with self._lock:
            self._switch(level)
            self._back_at_s = None if minutes is None else self._clock.monotonic_s() + minutes * 60

    def revert_if_due(self) -> None:
        with self._lock:
            if self._back_at_s is not None and self._clock.monotonic_s() >= self._back_at_s:
                self._back_at_s = None
                self._switch(self._configured)

    def _switch(self, level: str) -> None:
        self._apply(level)
        self.current = level
