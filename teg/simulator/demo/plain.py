"""How the demo looks: one live screen in a terminal, one line a second everywhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from teg.simulator.demo.account import Snapshot

#: Readings that move, worth a place in a plain line.
PLAIN_KEYS = ("load_1m", "cpu_percent", "memory_used_percent")
PLAIN_EVERY_S = 1.0


class View(Protocol):
    def show(self, snapshot: Snapshot) -> None: ...

    def say(self, text: str) -> None:
        """A line that stays."""
        ...


@contextmanager
def opened(stream: TextIO, terminal: str) -> Iterator[View]:
    """The view that suits `stream`; `terminal` is the kind of terminal ($TERM)."""
    if stream.isatty() and terminal not in ("", "dumb"):
        from teg.simulator.demo.screen import screen_view  # rich is needed in a terminal only

        with screen_view(stream) as view:
            yield view
    else:
        yield PlainView(stream)


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
    state = connection(snapshot) if snapshot.phase == "running" else snapshot.phase
    return (
        f"{snapshot.elapsed_s:5.1f} s  recorded {snapshot.recorded.total}"
        f"  on the way {snapshot.missing} (inbox {way.inbox}, archive {way.archive})"
        f"  server {snapshot.delivered}  {state}  {latest}"
    ).rstrip()


def connection(snapshot: Snapshot) -> str:
    return "connected" if snapshot.arrived.connected else "not connected"


def formatted(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
