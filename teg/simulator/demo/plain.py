"""How the demo looks where there is no terminal: one line a second."""

from typing import Protocol, TextIO

from teg.simulator.demo.account import Snapshot, formatted

#: Readings that move, worth a place in a plain line.
PLAIN_KEYS = ("load_1m", "cpu_percent", "memory_used_percent")
PLAIN_EVERY_S = 1.0


class View(Protocol):
    def show(self, snapshot: Snapshot) -> None: ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...


class PlainView:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next_s = 0.0
        self._phase = ""

    def show(self, snapshot: Snapshot) -> None:
        """A line when the last one is a second old, or when something else is being done now."""
        if snapshot.elapsed_s >= self._next_s or snapshot.phase != self._phase:
            self._next_s = snapshot.elapsed_s + PLAIN_EVERY_S
            self._phase = snapshot.phase
            self.say(plain_line(snapshot))

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


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
