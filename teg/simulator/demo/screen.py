"""The demo's live screen, drawn with `rich`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from teg.simulator.demo.account import Snapshot, formatted

COLUMNS = 2
MAX_KEYS = 24


@contextmanager
def screen_view(stream: TextIO) -> Iterator["ScreenView"]:
    console = Console(file=stream)
    with Live(console=console, refresh_per_second=4) as live:
        yield ScreenView(console, live)


class ScreenView:
    def __init__(self, console: Console, live: Live) -> None:
        self._console = console
        self._live = live

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(screen(snapshot))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


def screen(snapshot: Snapshot) -> RenderableType:
    """The whole screen, 24 lines at most: title, the three places a value can be in, the newest values."""
    title = f"[bold]Edge gateway demo[/]  {snapshot.elapsed_s:.0f} s"
    hint = "Ctrl-C stops everything and prints the account" if snapshot.phase == "running" else snapshot.phase
    return Panel(Group("", _places(snapshot), "", _newest(snapshot), ""), title=title, subtitle=hint, padding=(0, 2))


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
    colour = "green" if snapshot.arrived.connected else "red"
    return f"[{colour}]●[/] {snapshot.connection}, {snapshot.arrived.publishes:,} messages"


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
