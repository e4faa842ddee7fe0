"""The pictures in docs/pictures, of a real run: the demo's screen and its gateway's status page, after some blows.

python -m bench.pictures [directory]
"""

import re
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser
from rich.console import Console
from rich.markup import escape

from teg.simulator.demo.blows import LEGEND, Blows
from teg.simulator.demo.places import Places
from teg.simulator.demo.plain import what_it_did
from teg.simulator.demo.screen import screen
from teg.simulator.demo.world import World
from tests.support.browser import chromium

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 104, 36
#: When which key is pressed, seconds from the first value on the server; the rest of the time shows what follows.
KEYS = ((3, "k"), (20, "n"), (50, "n"), (60, "g"), (72, "r"), (74, "f"), (82, "c"))
SECONDS = 100
DESKTOP, PHONE = (1200, 740), (390, 780)


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    target.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="teg-pictures-"))
        events: deque[str] = deque(maxlen=20)
        world = World(Places(Path(directory)), stack, lambda line: _heard(events, line))
        blows = Blows(world, lambda text: events.append(f"[bold magenta]{escape(text)}[/]"))
        _play(world, blows, lambda played_s: [key for at_s, key in KEYS if at_s <= played_s])
        (target / "demo.svg").write_text(terminal(world, list(events)), encoding="utf-8")
        browser = stack.enter_context(chromium())
        shoot(browser, world.page, target / "page-desktop.png", DESKTOP, "light")
        shoot(browser, world.page, target / "page-dark.png", DESKTOP, "dark")
        shoot(browser, world.page, target / "page-phone.png", PHONE, "light")
    total = sum(picture.stat().st_size for picture in target.iterdir())
    print(f"{target}: {', '.join(sorted(picture.name for picture in target.iterdir()))}, {total / 1000:.0f} kB")


def _heard(events: deque[str], line: str) -> None:
    if text := what_it_did(line):
        events.append(f"[dim]gateway:[/] {escape(text)}")


def _play(world: World, blows: Blows, due: Callable[[float], list[str]]) -> None:
    struck = 0
    while True:
        now = world.look("running")
        played_s = now.elapsed_s - (now.elapsed_s if now.first_arrival_s is None else now.first_arrival_s)
        for key in due(played_s)[struck:]:
            blows.strike(key, now)
            struck += 1
        if played_s > SECONDS:
            return
        blows.tend(now)
        world.tend()
        time.sleep(0.2)


def terminal(world: World, events: list[str]) -> str:
    """The demo's screen as an SVG that fetches nothing."""
    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=WIDTH, height=HEIGHT, file=nowhere, force_terminal=True)
        console.print(screen(world.look("running"), events, LEGEND, WIDTH, HEIGHT))
    drawn = console.export_svg(title="make demo", unique_id="demo")
    return re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)


def shoot(browser: Browser, address: str, file: Path, size: tuple[int, int], scheme: str) -> None:
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"http://{address}/")
    page.locator("#curves svg").first.wait_for()
    page.locator("#values tbody tr").first.wait_for()
    page.wait_for_timeout(2_500)
    page.screenshot(path=file)


if __name__ == "__main__":
    main()
