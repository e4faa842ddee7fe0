"""The durable store as the rules see it: what is kept, what is on its way, what was set aside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Protocol

from teg.domain.telemetry.validation import Record, SetAside


class Stream(IntEnum):
    """Lines of the outbox: the gateway's own few reports first; data and republished rows take turns."""

    OWN = 0
    DATA = 1
    REPUBLISH = 2


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Inbox rows that are archived but may still be in the inbox: their ids and `fingerprint`s of what they held.

    More than one of an id: rows that were taken over from the reference have ids of their own table.
    """

    messages: Mapping[int, Sequence[bytes]]


def fingerprint(message: bytes) -> bytes:
    """Tells whether an inbox row is the one that was archived under its id; a table of rows would not fit in memory."""
    return blake2b(message, digest_size=16).digest()


class Archive(Protocol):
    """What the recorder needs: one durable transaction a batch."""

    def store(self, records: Sequence[Record], set_aside: Sequence[SetAside], left_upto: int | None) -> None:
        """Keep a batch durably, put it on its way, and note it as still being in the inbox.

        Earlier batches whose rows are all <= `left_upto` (None: all of them) have left the inbox and are forgotten.
        """
        ...

    def unfinished(self) -> Unfinished: ...

    def confirm(self) -> None:
        """What was stored still is where the next life of the gateway will look for it.

        Raises:
            Unavailable: it is not; nothing may be deleted elsewhere on the strength of it.
        """
        ...


class Outbox(Protocol):
    """What the publisher needs."""

    def pending(self, lane: Stream, after_id: int, max_rows: int, max_bytes: int) -> list[tuple[int, int, int, bytes]]:
        """Rows of `lane` after `after_id`, oldest first: (id, points, kind, JSON); at least one if there is one."""
        ...

    def newest(self, lane: Stream) -> int:
        """The highest id waiting in `lane`, 0 when there is none."""
        ...

    def connection_ended(self) -> int:
        """A new connection begins: what was acknowledged on earlier ones and never proven stored waits again.

        Returns how many rows that are; 0 for a server that gives no proofs, and while that is not known yet.
        """
        ...

    def mark_published(self, deliveries: Sequence["Delivery"]) -> None:
        """The server acknowledged these: they leave the outbox, unproven as long as the server gives proofs."""
        ...

    def set_aside(self, lane: Stream, record_id: int, reason: str) -> None:
        """Take a row that the server refuses out of the outbox into the dead letters."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """One acknowledged publish: the rows it carried."""

    lane: Stream
    ids: Sequence[int]
    transient: bool


class OwnRecords(Protocol):
    """Where the gateway's own telemetry waits."""

    def store_own(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Keep (ts_ms, JSON record) pairs until delivered; durable when it returns."""
        ...


class StorageKeeper(Protocol):
    """Looks after the file that everything above lies in."""

    @property
    def care_due(self) -> bool:
        """True when `tend` has something to do; cheap, never blocks for long."""
        ...

    @property
    def salvage_due(self) -> bool: ...

    def stop_waiting(self) -> None:
        """The process stops: from now on nothing waits long for a lock that another program holds."""
        ...

    def tend(self) -> None:
        """Make sure that the open file is the one on the disk; raises Unavailable when it cannot be made so yet."""
        ...

    @property
    def check_due(self) -> bool:
        """True until a file that was too large for it at the start has been looked through."""
        ...

    def check(self, stopping: Callable[[], bool]) -> None:
        """Read every row, in short pieces; damage that is met is dealt with, and raises Unavailable."""
        ...

    def salvage(self, stopping: Callable[[], bool]) -> Sequence[str]:
        """Bring back what was moved aside as damaged; returns what to tell, a line for each finished set."""
        ...
