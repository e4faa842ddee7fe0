"""The demo's live screen, drawn with `rich`."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from teg.simulator.demo.account import Snapshot, formatted
from teg.simulator.demo.plain import what_it_did

COLUMNS = 2
MAX_KEYS = 14


#: Newest events shown.
EVENTS = 7
#: Heights of the backlog's curve, from nothing to its own highest.
_BARS = " ▁▂▃▄▅▆▇█"


@contextmanager
def screen_view(stream: TextIO, legend: str) -> Iterator["ScreenView"]:
    console = Console(file=stream)
    with Live(console=console, refresh_per_second=4) as live:
        yield ScreenView(console, live, legend)


class ScreenView:
    def __init__(self, console: Console, live: Live, legend: str) -> None:
        self._console = console
        self._live = live
        self._legend = legend
        self._events: deque[str] = deque(maxlen=EVENTS)

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(screen(snapshot, tuple(self._events), self._legend))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def event(self, text: str) -> None:
        self._events.append(f"[bold magenta]{escape(text)}[/]")

    def heard(self, line: str) -> None:
        if text := what_it_did(line):
            self._events.append(f"[dim]gateway:[/] {escape(text)}")


def screen(snapshot: Snapshot, events: Sequence[str] = (), legend: str = "") -> RenderableType:
    """The whole screen, 32 lines at most: the three places a value can be in, the backlog, values, events, keys."""
    title = f"[bold]Edge gateway demo[/]  {snapshot.elapsed_s:.0f} s"
    hint = "Ctrl-C or q stops everything and prints the account" if snapshot.phase == "running" else snapshot.phase
    parts = ["", _places(snapshot), _curve(snapshot), "", _newest(snapshot), "", _events(events)]
    if legend:
        parts += ["", Text(legend, style="dim", justify="center")]
    return Panel(Group(*parts), title=title, subtitle=hint, padding=(0, 2))


def _events(events: Sequence[str]) -> RenderableType:
    """Newest last, one line each, always the same height."""
    lines = [*events, *[""] * (EVENTS - len(events))]
    return Group(*(_line(line) for line in lines))


def _line(markup: str) -> Text:
    text = Text.from_markup(markup, overflow="ellipsis")
    text.no_wrap = True
    return text


def _curve(snapshot: Snapshot) -> RenderableType:
    """What was on the way, from a while ago to now."""
    highest = max(snapshot.backlog, default=0)
    bars = "".join(_BARS[-(-value * 8 // highest) if highest else 0] for value in snapshot.backlog)
    return Text(f"on the way, at most {highest:,}: {bars}", style="yellow", no_wrap=True, overflow="crop")


def _places(snapshot: Snapshot) -> RenderableType:
    way, arrived = snapshot.on_the_way, snapshot.arrived
    table = Table.grid(expand=True)
    for _ in range(5):
        table.add_column(justify="center")
    arrow = "[green]──▶[/]" if arrived.connected else "[red]─ ─[/]"
    table.add_row("[bold]controller[/]", "", "[bold]gateway[/]", "", "[bold]ThingsBoard stand-in[/]")
    table.add_row(
        f"[cyan]{snapshot.recorded.total:,}[/] recorded",
        "[green]──▶[/]",
        f"[yellow]{snapshot.missing:,}[/] on the way",
        arrow,
        f"[green]{snapshot.delivered:,}[/] stored",
    )
    first = "" if snapshot.first_arrival_s is None else f"first after {snapshot.first_arrival_s:.1f} s"
    table.add_row(
        f"[dim]{snapshot.recorded.records:,} records[/]",
        "",
        f"[dim]inbox {way.inbox:,} · archive {way.archive:,} · set aside {way.set_aside:,}[/]",
        "",
        f"[dim]{first} · duplicated {arrived.duplicated:,}[/]",
    )
    table.add_row("", "", "", "[green]TLS[/]" if arrived.connected else "[red]off[/]", _state(snapshot))
    return table


def _state(snapshot: Snapshot) -> str:
    """How it is, also in the last frame: then the gateway was stopped, not cut off."""
    connected = snapshot.arrived.connected
    colour = "green" if connected else "dim" if snapshot.phase == "stopped" else "red"
    state = "stopped" if snapshot.phase == "stopped" and not connected else snapshot.connection
    return f"[{colour}]●[/] {state}, {snapshot.arrived.publishes:,} messages"


def _newest(snapshot: Snapshot) -> RenderableType:
    """The controller's keys in two columns."""
    table = Table.grid(expand=True, padding=(0, 2))
    for _ in range(COLUMNS):
        table.add_column(ratio=3, no_wrap=True, style="dim")
        table.add_column(ratio=2, no_wrap=True, justify="right")
    keys = [key for key in snapshot.recorded.values if key in snapshot.arrived.latest][:MAX_KEYS]
    cells = [escape(cell) for key in keys for cell in (key, formatted(snapshot.arrived.latest[key]))]
    for start in range(0, len(cells), 2 * COLUMNS):
        table.add_row(*cells[start : start + 2 * COLUMNS])
    heading = "newest values on the server" if keys else "waiting for the first value"
    return Group(f"[bold]{heading}[/]", table)
