"""The ends of the logs, for the page: each is read by one request at a time, others see what was read last."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from teg.domain.errors import Refused, Unavailable

LINES, LINE_CHARACTERS = 100, 500
FRESH_S = 2.0


class Tails:
    """By the name of the log. An engine that hangs holds up one request, not the page."""

    def __init__(
        self, logs: Mapping[str, Callable[[int], list[str]]], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._tails = {name: _Tail(read, now_s) for name, read in logs.items()}

    def lines(self, name: str) -> list[str]:
        return self._tails[name].lines()


class _Tail:
    def __init__(self, read: Callable[[int], list[str]], now_s: Callable[[], float]) -> None:
        self._read = read
        self._now_s = now_s
        self._reading = threading.Lock()
        self._kept: list[str] = []
        self._fresh_until_s = float("-inf")

    def lines(self) -> list[str]:
        if self._now_s() >= self._fresh_until_s and self._reading.acquire(blocking=False):
            try:
                self._kept = self._look()
                self._fresh_until_s = self._now_s() + FRESH_S
            finally:
                self._reading.release()
        return self._kept

    def _look(self) -> list[str]:
        try:
            found: list[Any] = self._read(LINES)[-LINES:]
        except (Unavailable, Refused) as reason:
            return [f"(cannot be read now: {reason})"]
        return [str(line)[:LINE_CHARACTERS] for line in found]
