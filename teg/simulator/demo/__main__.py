"""`make demo`: a controller, the gateway and a ThingsBoard stand-in on this machine, live, with an account at the end.

Real parts: the readings, the `huey_consumer` process, the supervised controller, MQTT over TLS. Nothing else has to be
installed or running. In a terminal every key is a blow; `DEMO_SECONDS=n` plays a script of blows and ends by itself,
n seconds after the first value has arrived, or later if the last blow is not survived by then.
Exit status 0 means that nothing was lost.
"""

import contextlib
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from teg.simulator.demo.account import Snapshot
from teg.simulator.demo.blows import LEGEND, Blows
from teg.simulator.demo.children import ChildFailed
from teg.simulator.demo.environment import GATEWAY_COMMAND
from teg.simulator.demo.keyboard import Keyboard, keyboard
from teg.simulator.demo.outlet import Outlet
from teg.simulator.demo.places import Places
from teg.simulator.demo.plain import PlainView, View
from teg.simulator.demo.schedule import Schedule
from teg.simulator.demo.world import World

LOOK_EVERY_S = 0.2
#: How long the last values may take to the server once the controller has stopped.
DRAIN_S = 30.0


class BadDuration(Exception):  # noqa: N818
    """DEMO_SECONDS is not a number of seconds."""


class NotSetUp(Exception):  # noqa: N818
    """The virtual environment is not complete."""


def main() -> int:
    """0: every recorded value was delivered. 1: not, or one of the processes failed."""
    directory = Path(tempfile.mkdtemp(prefix="teg-demo-"))
    status = 1
    try:
        with stop_requests() as stop:
            status = run(Places(directory), duration(os.environ), stop)
    except (BadDuration, NotSetUp, ChildFailed) as failure:
        print(failure, flush=True)
    finally:
        clear(directory, status)
    return status


def clear(directory: Path, status: int) -> None:
    """Keep and name what may explain a failure."""
    if status == 0 or not any(directory.iterdir()):
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print(f"everything is kept in {directory}", flush=True)


def duration(environment: Mapping[str, str]) -> float:
    """DEMO_SECONDS; without it the demo goes on until q or Ctrl-C."""
    text = environment.get("DEMO_SECONDS", "").strip()
    if not text:
        return math.inf
    if not re.fullmatch(r"\d{1,7}(\.\d+)?", text) or float(text) == 0:
        raise BadDuration(f"DEMO_SECONDS={text!r} is not a number of seconds, such as 20")
    return float(text)


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Set by Ctrl-C, SIGTERM, or the terminal going away."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run(places: Places, seconds: float, stop: threading.Event) -> int:
    """The whole demo; returns the exit status, with everything stopped and the account printed."""
    if not GATEWAY_COMMAND[0].exists():
        raise NotSetUp(f"{GATEWAY_COMMAND[0]} does not exist: run `make setup` first")
    with contextlib.ExitStack() as stack:
        outlet = Outlet(sys.stdout, stop.set)
        keys = stack.enter_context(keyboard())
        view = stack.enter_context(opened_view(outlet, os.environ.get("TERM", ""), LEGEND if keys.usable else ""))
        view.say(f"controller -> gateway (huey_consumer) -> ThingsBoard stand-in, all in {places.directory}")
        world = World(places, stack, view.heard)
        view.say(f"the gateway's status page: http://{world.page}/")
        demo = Demo(world, Blows(world, view.event), view, stop)
        last = demo.run(seconds, keys)
        struck = demo.blows.account(last.missing)
    return conclude(last, struck, outlet)


@contextlib.contextmanager
def opened_view(outlet: Outlet, terminal: str, legend: str) -> Iterator[View]:
    """The view that suits where it goes; `terminal` is the kind of terminal ($TERM)."""
    if outlet.isatty() and terminal not in ("", "dumb"):
        from teg.simulator.demo.screen import fits, screen_view  # rich is needed in a terminal only

        if fits(outlet.as_text):
            with screen_view(outlet.as_text, legend) as drawn:
                yield drawn
            return
    lines = PlainView(outlet.as_text)
    if legend:
        lines.say(f"keys: {legend.replace(' · ', ', ')}")
    yield lines


def conclude(last: Snapshot, struck: str, outlet: Outlet) -> int:
    """Print the account; 0 only if something was recorded and all of it arrived."""
    say = PlainView(outlet.as_text).say
    way = last.on_the_way
    if last.missing and way.inbox + way.archive:
        say(f"of what is lost below, {way.inbox + way.archive} records are safe on disk, not yet delivered")
    if last.first_arrival_s is not None:
        say(f"first arrival {last.first_arrival_s:.1f} s after the start")
    say(struck)
    say(last.account())
    return 0 if last.recorded.total and not last.missing else 1


class Demo:
    """Looks at the world, strikes it by keys and by the script, and brings it to its account."""

    def __init__(self, world: World, blows: Blows, view: View, stop: threading.Event) -> None:
        self.world = world
        self.blows = blows
        self._view = view
        self._stop = stop

    def run(self, seconds: float, keys: Keyboard) -> Snapshot:
        """The last frame is true also of a run that failed."""
        try:
            self.play(seconds, keys)
            return self.finish()
        except ChildFailed:
            self.world.stop()
            self._view.show(self.world.look("stopped"))
            raise

    def play(self, seconds: float, keys: Keyboard) -> None:
        schedule = Schedule(seconds)

        def strike(now: Snapshot) -> bool:
            scripted = schedule.due(now.elapsed_s, now.first_arrival_s, self.blows.survived)
            for key in scripted + keys.pressed():
                if key == "q":
                    return True
                self.blows.strike(key, now)
            ended = schedule.is_over(now.elapsed_s, now.first_arrival_s)
            return self._stop.is_set() or (ended and (self.blows.survived or schedule.is_late(now.elapsed_s)))

        self._watch("running", strike)

    def finish(self) -> Snapshot:
        """Nothing is off any more, the controller ends, the gateway delivers what is left; a new stop hurries."""
        self._stop.clear()
        self.blows.end()
        self.world.stop_controller()
        self.world.start_without_controller()
        drained_by_s = self.world.elapsed_s + DRAIN_S
        self._watch("draining", lambda now: now.is_settled or now.elapsed_s > drained_by_s or self._stop.is_set())
        self.world.stop()
        last = self.world.look("stopped")
        self._view.show(last)
        return last

    def _watch(self, phase: str, over: Callable[[Snapshot], bool]) -> None:
        while True:
            now = self.world.look(phase)
            self._view.show(now)
            if over(now):
                return
            self.blows.tend(now)
            self.world.tend()
            time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
