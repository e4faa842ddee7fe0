"""Acknowledged rows on their way to being marked: gathered, because each mark costs a write, and written before a look.

Whoever counts the outbox, or changes what it means to wait in it, calls `write` first, and sees the state of now.
"""

import threading
from collections.abc import Sequence

from teg.domain.telemetry.ports import Delivery, Outbox


class DeliveryMarks:
    """One for an outbox; usable from any thread. What could not be written is kept for the next try."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._writing = threading.Lock()
        self._gathered: list[Delivery] = []
        self._publishes = self._bytes = 0
        self.marked_publishes = self.marked_bytes = 0  #: since the start; a proof begins with what is marked

    def __bool__(self) -> bool:
        return bool(self._gathered)

    @property
    def publishes(self) -> int:
        """Acknowledged and not marked yet."""
        return self._publishes

    def add(self, deliveries: Sequence[Delivery], size: int) -> None:
        """One acknowledged publish of `size` bytes."""
        with self._writing:
            self._gathered += deliveries
            self._publishes += 1
            self._bytes += size

    def write(self) -> None:
        """Mark what is gathered; when it returns all that was added before is marked, by whomever.

        Raises:
            Unavailable: the outbox cannot be written now.
        """
        with self._writing:
            if not self._gathered:
                return
            self._outbox.mark_published(self._gathered)
            self.marked_publishes += self._publishes
            self.marked_bytes += self._bytes
            self._gathered, self._publishes, self._bytes = [], 0, 0
