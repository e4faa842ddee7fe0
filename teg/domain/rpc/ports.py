"""What the remote methods need beside the common ports of `teg/domain/ports.py`."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from teg.domain.ports import Host


class ArchiveControl(Protocol):
    """What an operator can do with the archive; every range includes both ends; raises Unavailable."""

    def mark_for_publishing(
        self,
        start_ms: int,
        end_ms: int,
        progress: Callable[[int], None] = lambda _: None,
        keys: Sequence[str] | None = None,
    ) -> int:
        """Put the archived rows of a range, or these keys of them, on their way again, in slices; returns how many.

        `progress` hears, after each slice, how many so far.
        """
        ...

    def discard(self, start_ms: int, end_ms: int) -> int:
        """Delete the archived rows of a range; returns how many."""
        ...

    def kept(self, start_ms: int, end_ms: int) -> int:
        """Measurements of the range that are in the archive."""
        ...

    def stats(self, start_ms: int | None, end_ms: int | None) -> Mapping[str, Any]:
        """Rows, bytes, first and last ts, and with a range the counts per day."""
        ...

    def counts(self) -> Mapping[str, Any]:
        """The account and the backlog: accepted, published, pending, oldest_pending_ts, set_aside, …; cheap."""
        ...

    def dead_letters(self, limit: int, before_id: int | None) -> Sequence[Mapping[str, Any]]:
        """The newest dead letters with an id below `before_id`, newest first."""
        ...

    def retry_dead_letters(self, ids: Sequence[int] | None) -> int:
        """Put them (None: all) on their way again; returns how many."""
        ...

    def drop_dead_letters(self, ids: Sequence[int] | None) -> int: ...


class LogRing(Protocol):
    """The last lines of the gateway's own log, kept in memory."""

    def recent(self, lines: int, level: int = logging.DEBUG) -> list[str]:
        """The last lines of at least this level, oldest first."""
        ...


class Machine(Host, Protocol):
    """The host, and whether it lets us act on it at all."""

    def power_problem(self, action: str) -> str | None:
        """Why `reboot` or `shutdown` could not work here (no such program, a container), None when it could."""
        ...
