"""Keeps the archive within its quota, its age and the disk, and says loudly when measurements had to go undelivered."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from teg.domain.errors import Unavailable
from teg.domain.ports import Clock

logger = logging.getLogger("gateway.retention")

DAY_MS = 86_400_000
#: By age, and a checkpoint, whether the archive grew or not.
EVERY_S = 3600.0
#: What is in quarantine may take a quarter of the quota, beside it.
QUARANTINE_SHARE = 4
#: The archive leaves so many times the ballast free, as far as it can without giving up undelivered measurements.
RESERVE = 2


class Maintenance(Protocol):
    def shrink(self, max_bytes: int, before_ms: int | None, soft_bytes: int | None = None) -> Mapping[str, int]:
        """Delete in the stated order until the limits hold; returns counts `expired` and `evicted`.

        `soft_bytes` is aimed at without touching undelivered measurements.
        """
        ...

    def prune_quarantine(self, max_bytes: int) -> int:
        """Delete the oldest damaged sets that are not needed any more, until all take so little; returns how many."""
        ...

    def file_bytes(self) -> int: ...

    def checkpoint(self) -> None: ...


class Disk(Protocol):
    """The partition, and a file on it that is let go when it is full."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def held(self) -> bool: ...

    def free_bytes(self) -> int: ...

    def let_go(self) -> None: ...

    def take(self) -> None: ...


class Retention:
    """`due` is looked at every few seconds, so the archive is kept in bounds by its growth, not by the hour."""

    def __init__(
        self, maintenance: Maintenance, disk: Disk, clock: Clock, max_bytes: int, max_days: int | None
    ) -> None:
        self._maintenance = maintenance
        self._disk = disk
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_days = max_days
        self._next_s = float("-inf")
        self._full = False

    @property
    def due(self) -> bool:
        if self._clock.monotonic_s() >= self._next_s or self._maintenance.file_bytes() > self._max_bytes:
            return True
        missing = self._missing_bytes()
        return missing > 0 or (missing < 0 and not self._disk.held)

    def run(self) -> None:
        """
        Raises:
            Unavailable: the archive is locked or the disk fails; the next run makes up for it.
        """
        self._make_room()
        if sets := self._maintenance.prune_quarantine(self._max_bytes // QUARANTINE_SHARE):
            logger.info("%d damaged sets of files in quarantine went: their rows are in the archive", sets)
        before_ms = None if self._max_days is None else self._clock.now_ms() - self._max_days * DAY_MS
        self._maintenance.checkpoint()
        missing = self._missing_bytes()
        # With room on the disk there is no such bound: an archive that grows meanwhile would be cut back by its growth.
        soft_bytes = self._maintenance.file_bytes() - missing if missing > 0 else None
        gone = self._maintenance.shrink(self._max_bytes, before_ms, soft_bytes)
        if gone["evicted"]:
            logger.error("the archive is over its quota of %d bytes: %d records went", self._max_bytes, gone["evicted"])
        self._maintenance.checkpoint()
        self._next_s = self._clock.monotonic_s() + EVERY_S
        self._hold_reserve()

    def _missing_bytes(self) -> int:
        """How much less than the reserve is free; what the ballast holds does not count."""
        return RESERVE * self._disk.size_bytes - self._disk.free_bytes()

    def _make_room(self) -> None:
        full = self._disk.free_bytes() < self._disk.size_bytes // 4
        if full and not self._full:
            logger.error("the disk is full: %d bytes are free", self._disk.free_bytes())
        if full:
            self._disk.let_go()
        self._full = full

    def _hold_reserve(self) -> None:
        if not self._disk.held and self._missing_bytes() < -self._disk.size_bytes:
            with suppress(Unavailable):
                self._disk.take()
                logger.info("the disk has room again" if self._full else "room for hard times is set apart")
