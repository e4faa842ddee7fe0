"""How the demo looks where there is no terminal: one line a second, one for each event."""

import re
import threading
from typing import Protocol, TextIO

from teg.simulator.demo.account import Snapshot, formatted

#: Readings that move, worth a place in a plain line.
PLAIN_KEYS = ("load_1m", "cpu_percent", "memory_used_percent")
PLAIN_EVERY_S = 1.0
#: "2026-11-24 13:57:39,956 WARNING gateway.session: text" or "<4>gateway.session: text" → the text.
_LOG_LINE = re.compile(
    r"(?:[\d-]{10} [\d:,.]+\s+)?(?:<\d>)?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)?\s*(gateway[\w.]*): (.*)"
)


class View(Protocol):
    def show(self, snapshot: Snapshot) -> None: ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...

    def event(self, text: str) -> None:
        """Something was done to the gateway; from any thread."""
        ...

    def heard(self, line: str) -> None:
        """A line of the gateway's own log: what it did about it; from any thread."""
        ...


class PlainView:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_s = 0.0
        self._phase = ""
        self._lock = threading.Lock()

    def show(self, snapshot: Snapshot) -> None:
        """A line when the last one is a second old, or when something else is being done now."""
        if snapshot.elapsed_s >= self._next_s or snapshot.phase != self._phase:
            self._next_s = snapshot.elapsed_s + PLAIN_EVERY_S
            self._phase = snapshot.phase
            self.say(plain_line(snapshot))

    def say(self, text: str) -> None:
        with self._lock:
            print(text.encode("ascii", "replace").decode(), file=self._stream, flush=True)

    def event(self, text: str) -> None:
        self.say(f"  {text.replace('»', '>>').replace('✓', 'ok')}")

    def heard(self, line: str) -> None:
        if text := what_it_did(line):
            self.say(f"     gateway: {text}")


def what_it_did(log_line: str) -> str:
    """The text of a log line of the gateway's; empty for anything else (a trace, another program)."""
    match = _LOG_LINE.match(log_line)
    return match[2] if match else ""


def plain_line(snapshot: Snapshot) -> str:
    """ASCII, and short enough for 120 columns."""
    way, arrived = snapshot.on_the_way, snapshot.arrived
    latest = " ".join(f"{key}={formatted(arrived.latest[key])}" for key in PLAIN_KEYS if key in arrived.latest)
    state = snapshot.connection if snapshot.phase == "running" else snapshot.phase
    return (
        f"{snapshot.elapsed_s:5.1f} s  recorded {snapshot.recorded.total}"
        f"  on the way {snapshot.missing} (inbox {way.inbox}, archive {way.archive})"
        f"  server {snapshot.delivered}  {state}  {latest}"
    ).rstrip()
