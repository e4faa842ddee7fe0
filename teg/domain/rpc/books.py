"""Keeps the books: the intent before an effect, the outcome after it, and one line for every call there was."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import orjson

from teg.domain.ports import Clock
from teg.domain.redaction import masked_json, masked_text
from teg.domain.rpc.journal import CallKey, Entry, Instant, Ledger, State
from teg.domain.server.wire import RpcRequest

#: Quick calls wait in memory for the next write: a dashboard that pings every second must not wear out the card.
MAX_BUFFERED = 500
LINE_CHARACTERS = 300


def interrupted(method: str) -> str:
    """The answer to a call whose end nobody saw."""
    return (
        f"Error - interrupted: it is not known how far '{method}' came, the gateway stopped or could not note its end;"
        " it is not done again"
    )


class Books:
    """What `Calls` writes down, over the durable `Ledger`."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._buffered: deque[Entry] = deque(maxlen=MAX_BUFFERED)
        self._lock = threading.Lock()

    def recover(self) -> int:
        """At start: whatever was begun and has no outcome was interrupted, and is never done again."""
        begun = self._ledger.begun()
        for entry in begun:
            self._change(entry.id, State.INTERRUPTED, interrupted(entry.key.method))
        return len(begun)

    def standing(self, key: CallKey) -> Entry | None:
        """The call that a request with this key repeats; None for a new call."""
        entry = self._ledger.find(key)
        return entry if entry is not None and entry.stands(Instant.of(self._clock)) else None

    def begin(self, key: CallKey, request: RpcRequest) -> int:
        """The intent, durable before any effect."""
        return self._ledger.begin(key, masked_json(request.params), Instant.of(self._clock))

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
        entry = self._ledger.last_acted(method)
        if entry is None:
            return None
        return Instant.of(self._clock).certainly_since(entry.at_boot_id, entry.at_uptime_s)

    def note(self, request: RpcRequest, message: Any, started_s: float) -> None:
        """One line for a call that left nothing to repeat; written with the next `flush`."""
        now = Instant.of(self._clock)
        entry = Entry(
            key=CallKey(request.id, request.method[:200], b""),
            params=masked_json(request.params),
            state=State.DONE,
            answer=orjson.dumps(_short(message)).decode(),
            received_ms=now.wall_ms,
            duration_ms=round((now.uptime_s - started_s) * 1000),
            at_boot_id=now.boot_id,
            at_uptime_s=now.uptime_s,
        )
        with self._lock:
            self._buffered.append(entry)

    def flush(self) -> None:
        """Write what waits in memory; on a full or locked disk it waits on."""
        with self._lock:
            entries = list(self._buffered)
        if entries:
            self._ledger.append(entries)
            with self._lock:
                for _ in entries[: len(self._buffered)]:
                    self._buffered.popleft()
        self._ledger.prune()

    def recent(self, count: int) -> list[Entry]:
        """The last calls, oldest first, those still in memory included."""
        with self._lock:
            buffered = list(self._buffered)
        return sorted([*self._ledger.recent(count), *buffered], key=lambda entry: entry.received_ms)[-count:]

    def _change(self, entry_id: int, state: State, message: Any = None, duration_ms: int | None = None) -> None:
        answer = None if message is None else orjson.dumps(message).decode()
        self._ledger.change(entry_id, state, Instant.of(self._clock), answer, duration_ms)


def call_lines(entries: Iterable[Entry]) -> list[str]:
    """One line a call, as `get_logs` shows them."""
    return [_line(entry) for entry in entries]


def _line(entry: Entry) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.received_ms / 1000))
    took = "" if entry.duration_ms is None else f" ({entry.duration_ms} ms)"
    answer = masked_text(entry.answer or "")
    text = f"{when} id={entry.key.request_id} {entry.key.method} {entry.params} {entry.state}{took}: {answer}"
    return text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"


def _short(message: Any) -> Any:
    """Quick answers are not repeated, so their first words are enough for the books."""
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    return text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"
