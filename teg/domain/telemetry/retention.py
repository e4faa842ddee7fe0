"""Keeps the archive within its quota and age, and says loudly when measurements had to go undelivered."""

import logging
from collections.abc import Mapping
from typing import Protocol

from teg.domain.ports import Clock

logger = logging.getLogger("gateway.housekeeping")

DAY_MS = 86_400_000


class Maintenance(Protocol):
    def shrink(self, max_bytes: int, before_ms: int | None) -> Mapping[str, int]:
        """Delete in the stated order until both limits hold; returns counts `expired` and `evicted`."""
        ...

    def checkpoint(self) -> None: ...


class Retention:
    """Run hourly."""

    def __init__(self, maintenance: Maintenance, clock: Clock, max_bytes: int, max_days: int | None) -> None:
        self._maintenance = maintenance
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_days = max_days

    def run(self) -> None:
        """
        Raises:
            Unavailable: the archive is locked or the disk fails; the next run makes up for it.
        """
        before_ms = None if self._max_days is None else self._clock.now_ms() - self._max_days * DAY_MS
        gone = self._maintenance.shrink(self._max_bytes, before_ms)
        if gone["evicted"]:
            logger.error("the archive is over its quota of %d bytes: %d records went", self._max_bytes, gone["evicted"])
        self._maintenance.checkpoint()
