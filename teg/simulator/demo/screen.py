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
#: Most keys and newest events shown; a lower terminal shows fewer of both.
MAX_KEYS, MAX_EVENTS = 14, 9
#: A terminal below this gets lines.
MIN_WIDTH, MIN_HEIGHT = 64, 18
#: Frame, places, curve, headings and the empty lines between them.
_FIXED_LINES = 13
#: Heights of the backlog's curve, from nothing to its own highest.
_BARS = " ▁▂▃▄▅▆▇█"


def fits(stream: TextIO) -> bool:
    """Whether the screen can be drawn there: size, and characters that it knows."""
    console = Console(file=stream)
    return console.width >= MIN_WIDTH and console.height >= MIN_HEIGHT and console.encoding.startswith("utf")


@contextmanager
def screen_view(stream: TextIO, legend: str) -> Iterator["ScreenView"]:
    console = Console(file=stream)
    with Live(console=console, refresh_per_second=4, vertical_overflow="crop") as live:
        yield ScreenView(console, live, legend)


class ScreenView:
    def __init__(self, console: Console, live: Live, legend: str) -> None:
        self._console = console
        self._live = live
        self._legend = legend
        self._events: deque[str] = deque(maxlen=MAX_EVENTS)

    def show(self, snapshot: Snapshot) -> None:
        size = self._console.size
        self._live.update(screen(snapshot, tuple(self._events), self._legend, size.width, size.height))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def event(self, text: str) -> None:
        self._events.append(f"[bold magenta]{escape(text)}[/]")

    def heard(self, line: str) -> None:
        if text := what_it_did(line):
            self._events.append(f"[dim]gateway:[/] {escape(text)}")


def screen(
    snapshot: Snapshot, events: Sequence[str] = (), legend: str = "", width: int = 100, height: int = 40
) -> RenderableType:
    """One screen of that size: the three places a value can be in, the backlog, values, events, keys."""
    title = f"[bold]Edge gateway demo[/]  {snapshot.elapsed_s:.0f} s"
    running = snapshot.phase == "running" and bool(legend)
    hint = "Ctrl-C or q stops everything and prints the account" if running else snapshot.phase
    keys = Text(legend, style="dim", justify="center")
    free = height - 1 - _FIXED_LINES - len(keys.wrap(Console(width=width - 6), width - 6))
    shown = max(0, min(MAX_EVENTS, free - min(free // 2, MAX_KEYS // COLUMNS)))
    newest = _newest(snapshot, max(0, min(MAX_KEYS, (free - shown) * COLUMNS)))
    parts = ["", _places(snapshot), _curve(snapshot), "", newest, "", _events(events, shown), "", keys]
    return Panel(Group(*parts), title=title, subtitle=hint, padding=(0, 2))


def _events(events: Sequence[str], count: int) -> RenderableType:
    """Newest last, one line each, always the same height."""
    lines = list(events)[-count:] if count else []
    return Group(*(_line(line) for line in [*lines, *[""] * (count - len(lines))]))


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
    """Five lines, whatever the width."""
    way, arrived = snapshot.on_the_way, snapshot.arrived
    table = Table.grid(expand=True, padding=(0, 1))
    for _ in range(5):
        table.add_column(justify="center", no_wrap=True, overflow="ellipsis")
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
    waiting = f"inbox {way.inbox:,} · archive {way.archive:,}"
    table.add_row(f"[dim]{snapshot.recorded.records:,} records[/]", "", f"[dim]{waiting}[/]", "", f"[dim]{first}[/]")
    aside, twice = f"set aside {way.set_aside:,}", f"duplicated {arrived.duplicated:,}"
    table.add_row("", "", f"[dim]{aside}[/]", "", f"[dim]{twice}[/]")
    table.add_row("", "", "", "[green]TLS[/]" if arrived.connected else "[red]off[/]", _state(snapshot))
    return table


def _state(snapshot: Snapshot) -> str:
    """How it is, also in the last frame: then the gateway was stopped, not cut off."""
    connected = snapshot.arrived.connected
    colour = "green" if connected else "dim" if snapshot.phase == "stopped" else "red"
    state = "stopped" if snapshot.phase == "stopped" and not connected else snapshot.connection
    return f"[{colour}]●[/] {state}, {snapshot.arrived.publishes:,} messages"


def _newest(snapshot: Snapshot, count: int) -> RenderableType:
    """The controller's keys in two columns."""
    table = Table.grid(expand=True, padding=(0, 2))
    for _ in range(COLUMNS):
        table.add_column(ratio=3, no_wrap=True, style="dim")
        table.add_column(ratio=2, no_wrap=True, justify="right")
    keys = [key for key in snapshot.recorded.values if key in snapshot.arrived.latest]
    cells = [escape(cell) for key in keys[:count] for cell in (key, formatted(snapshot.arrived.latest[key]))]
    for start in range(0, len(cells), 2 * COLUMNS):
        table.add_row(*cells[start : start + 2 * COLUMNS])
    heading = "newest values on the server" if keys else "waiting for the first value"
    return Group(f"[bold]{heading}[/]", table)
