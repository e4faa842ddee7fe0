"""The books of the calls: what was asked, what became of it, and when the same request is the same call.

Decision 0020: times are compared by boot and seconds since boot, never by the wall clock, which jumps on a machine
without a battery-backed clock. What cannot be compared counts as recent: a call is rather refused than done twice.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import orjson

from teg.domain.errors import Refused
from teg.domain.ports import Clock
from teg.domain.server.wire import RpcRequest

#: The server has our answer, so it stops re-sending the call at once; a SUBSCRIBE crossing on the way may lag behind.
ACKNOWLEDGED_STANDS_S = 60
#: Without an acknowledgement the server may re-send a persistent call until that expires.
UNACKNOWLEDGED_STANDS_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment that survives restarts: seconds since boot count only within the same boot."""

    boot_id: str
    uptime_s: float
    wall_ms: int

    @classmethod
    def of(cls, clock: Clock) -> "Instant":
        return cls(clock.boot_id(), clock.monotonic_s(), clock.now_ms())

    def certainly_since(self, earlier_boot_id: str, earlier_uptime_s: float) -> float:
        """Seconds that have passed for certain: in a later boot only its own uptime is known."""
        if earlier_boot_id == self.boot_id:
            return max(0.0, self.uptime_s - earlier_uptime_s)
        return max(0.0, self.uptime_s)


class State(StrEnum):
    """How far a call came; `UNDELIVERED` and the quick calls' `DONE` are only there for the record."""

    BEGUN = "begun"
    ANSWERED = "answered"
    ACKNOWLEDGED = "acknowledged"
    ACTED = "acted"
    INTERRUPTED = "interrupted"
    UNDELIVERED = "undelivered"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class CallKey:
    """What makes a re-delivered request the same call: the server numbers from 0 again after its restart."""

    request_id: int
    method: str
    digest: bytes

    @classmethod
    def of(cls, request: RpcRequest) -> "CallKey":
        """Raises Refused for parameters that JSON cannot hold."""
        try:
            params = orjson.dumps(request.params, option=orjson.OPT_SORT_KEYS)
        except (TypeError, RecursionError) as error:
            raise Refused(f"params cannot be read: {error}") from error
        return cls(request.id, request.method, hashlib.sha256(params).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the books. `params` are masked, `answer` is the JSON of the message, `at_*` the last change."""

    id: int = 0
    key: CallKey
    params: str
    state: State
    answer: str | None = None
    received_ms: int
    duration_ms: int | None = None
    at_boot_id: str
    at_uptime_s: float

    def stands(self, now: Instant) -> bool:
        """True while a request with this key is a re-delivery of this call, False when it is a new call."""
        age_s = now.certainly_since(self.at_boot_id, self.at_uptime_s)
        if self.state in (State.ACKNOWLEDGED, State.ACTED):
            return age_s < ACKNOWLEDGED_STANDS_S
        if self.state in (State.BEGUN, State.ANSWERED, State.INTERRUPTED):
            return age_s < UNACKNOWLEDGED_STANDS_S
        return False

    @property
    def message(self) -> Any:
        """The answer as it was given; None while there is none."""
        return None if self.answer is None else orjson.loads(self.answer)


class Ledger(Protocol):
    """Durable (fsync) before it returns, except where noted; raises Unavailable."""

    def find(self, key: CallKey) -> Entry | None:
        """The newest entry with this key."""
        ...

    def begin(self, key: CallKey, params: str, now: Instant) -> int:
        """Note the intent; returns the entry's id."""
        ...

    def change(
        self, entry_id: int, state: State, now: Instant, answer: str | None = None, duration_ms: int | None = None
    ) -> None:
        """Move an entry on; None leaves the stored value. `ACKNOWLEDGED` need not be fsynced."""
        ...

    def last_acted(self, method: str) -> Entry | None: ...

    def begun(self) -> list[Entry]:
        """What has an intent but no outcome: after a start, what the end of the last process interrupted."""
        ...

    def append(self, entries: Sequence[Entry]) -> None:
        """Add finished quick calls to the record, all in one transaction."""
        ...

    def prune(self) -> None:
        """Keep the newest of each kind (calls with effects, quick calls) and shorten answers no longer repeated."""
        ...

    def recent(self, count: int) -> list[Entry]:
        """The newest entries, oldest first."""
        ...
