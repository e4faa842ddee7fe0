"""The journal of the calls: what was asked, what became of it, and when the same request is the same call.

Decision 0020: times are compared by boot and seconds since boot, never by the wall clock, which jumps on a machine
without a battery-backed clock. What cannot be compared counts as recent: a call is rather refused than done twice.
"""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import orjson

from teg.domain.errors import Refused
from teg.domain.ports import Clock
from teg.domain.redaction import redacted_json, redacted_text
from teg.domain.server import RpcRequest

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
    """One line of the journal. `params` are masked, `answer` is the JSON of the message, `at_*` the last change."""

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


class JournalTable(Protocol):
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


logger = logging.getLogger("gateway.rpc")

#: Quick calls wait in memory for the next write: a dashboard that pings every second must not wear out the card.
MAX_BUFFERED = 500
LINE_CHARACTERS = 300


def interrupted(method: str) -> str:
    """The answer to a call whose end nobody saw."""
    return (
        f"Error - interrupted: it is not known how far '{method}' came, the gateway stopped or could not note its end;"
        " it is not done again"
    )


class CallJournal:
    """What `Calls` writes down, over the durable `JournalTable`."""

    def __init__(self, table: JournalTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._buffered: deque[Entry] = deque(maxlen=MAX_BUFFERED)
        self._lock = threading.Lock()
        self._left_out = 0

    def recover(self) -> int:
        """At start: whatever was begun and has no outcome was interrupted, and is never done again."""
        begun = self._table.begun()
        for entry in begun:
            self._change(entry.id, State.INTERRUPTED, interrupted(entry.key.method))
        return len(begun)

    def standing(self, key: CallKey) -> Entry | None:
        """The call that a request with this key repeats; None for a new call."""
        entry = self._table.find(key)
        return entry if entry is not None and entry.stands(Instant.of(self._clock)) else None

    def begin(self, key: CallKey, request: RpcRequest) -> int:
        """The intent, durable before any effect."""
        return self._table.begin(key, redacted_json(request.params), Instant.of(self._clock))

    def answered(self, entry_id: int, message: Any, started_s: float) -> None:
        duration_ms = round((self._clock.monotonic_s() - started_s) * 1000)
        self._change(entry_id, State.ANSWERED, message, duration_ms)

    def acknowledged(self, entry_id: int) -> None:
        self._change(entry_id, State.ACKNOWLEDGED)

    def undelivered(self, entry_id: int) -> None:
        """The announcement never arrived, so nothing was done: the same request is a new call."""
        self._change(entry_id, State.UNDELIVERED)

    def acting(self, entry_id: int, message: Any) -> None:
        """Durable before the effect: from here on it counts as done."""
        self._change(entry_id, State.ACTED, message)

    def seconds_since_acted(self, method: str) -> float | None:
        entry = self._table.last_acted(method)
        if entry is None:
            return None
        return Instant.of(self._clock).certainly_since(entry.at_boot_id, entry.at_uptime_s)

    def note(self, request: RpcRequest, message: Any, started_s: float) -> None:
        """One line for a call that left nothing to repeat; written with the next `flush`."""
        now = Instant.of(self._clock)
        entry = Entry(
            key=CallKey(request.id, request.method[:200], b""),
            params=redacted_json(request.params),
            state=State.DONE,
            answer=orjson.dumps(_short(message)).decode(),
            received_ms=now.wall_ms,
            duration_ms=round((now.uptime_s - started_s) * 1000),
            at_boot_id=now.boot_id,
            at_uptime_s=now.uptime_s,
        )
        with self._lock:
            self._left_out += len(self._buffered) == MAX_BUFFERED
            self._buffered.append(entry)

    def flush(self) -> None:
        """Write what waits in memory; on a full or locked disk it waits on."""
        with self._lock:
            entries = list(self._buffered)
        if entries:
            self._table.append(entries)
            with self._lock:
                for _ in entries[: len(self._buffered)]:
                    self._buffered.popleft()
                left_out, self._left_out = self._left_out, 0
            if left_out:
                logger.warning("%d quick calls are not in the journal: it could not be written for too long", left_out)
        self._table.prune()

    def recent(self, count: int) -> list[Entry]:
        """The last calls, oldest first, those still in memory included."""
        with self._lock:
            buffered = list(self._buffered)
        return sorted([*self._table.recent(count), *buffered], key=lambda entry: entry.received_ms)[-count:]

    def _change(self, entry_id: int, state: State, message: Any = None, duration_ms: int | None = None) -> None:
        answer = None if message is None else orjson.dumps(message).decode()
        self._table.change(entry_id, state, Instant.of(self._clock), answer, duration_ms)


def call_lines(entries: Iterable[Entry]) -> list[str]:
    """One line a call, as `get_logs` shows them."""
    return [_line(entry) for entry in entries]


def _line(entry: Entry) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.received_ms / 1000))
    took = "" if entry.duration_ms is None else f" ({entry.duration_ms} ms)"
    answer = redacted_text(entry.answer or "")
    text = f"{when} id={entry.key.request_id} {entry.key.method} {entry.params} {entry.state}{took}: {answer}"
    return text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"


def _short(message: Any) -> Any:
    """Quick answers are not repeated, so their first words are enough for the journal."""
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    return text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"
