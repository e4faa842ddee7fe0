"""`make demo`: a controller, the gateway and a ThingsBoard stand-in on this machine, live, with an account at the end.

Real parts: the readings, the `huey_consumer` process, MQTT over TLS. Nothing else has to be installed or running.
`DEMO_SECONDS=n` ends by itself; exit status 0 means that nothing was lost.
"""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from teg.simulator.demo.account import Snapshot, read_arrived, read_on_the_way, read_recorded
from teg.simulator.demo.children import Child, ChildFailed
from teg.simulator.demo.plain import PlainView, View

ROOT = Path(__file__).resolve().parents[3]
#: Beside this Python, in the virtual environment.
GATEWAY_COMMAND = (Path(sys.executable).with_name("huey_consumer"), "gateway.huey")
DEVICE, TOKEN = "demo-device", "demo-token"
LOOK_EVERY_S = 0.2
START_S = 20.0
#: How long the last values may take to the server once the controller has stopped.
DRAIN_S = 15.0


class BadDuration(Exception):  # noqa: N818
    """DEMO_SECONDS is not a number of seconds."""


class NotSetUp(Exception):  # noqa: N818
    """The virtual environment is not complete."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything of one demo lies."""

    directory: Path

    @property
    def controller_data(self) -> Path:
        return self.directory / "controller"

    @property
    def inbox(self) -> Path:
        return self.controller_data / "communication_queue.db"

    @property
    def gateway_data(self) -> Path:
        return self.directory / "gateway"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def account_file(self) -> Path:
        return self.directory / "recorded.json"

    @property
    def token_file(self) -> Path:
        return self.gateway_data / "tb_access_token"

    @property
    def server_account(self) -> Path:
        return self.directory / "arrived.json"

    def create(self) -> None:
        for path in (self.controller_data, self.gateway_data, self.logs):
            path.mkdir(mode=0o700)
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(TOKEN)


def main() -> int:
    """0: every recorded value was delivered. 1: not, or one of the processes failed."""
    directory = Path(tempfile.mkdtemp(prefix="teg-demo-"))
    status = 1
    try:
        with stop_requests() as stop:
            status = conclude(run(Places(directory), duration(os.environ), stop))
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
    """DEMO_SECONDS; without it the demo goes on until Ctrl-C."""
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


def run(places: Places, seconds: float, stop: threading.Event) -> Snapshot:
    """The whole demo; returns how it stood at the end, with everything stopped."""
    if not GATEWAY_COMMAND[0].exists():
        raise NotSetUp(f"{GATEWAY_COMMAND[0]} does not exist: run `make setup` first")
    with contextlib.ExitStack() as children:
        demo = Demo(places, children)
        with opened_view(sys.stdout, os.environ.get("TERM", "")) as view:
            view.say(f"controller -> gateway (huey_consumer) -> ThingsBoard stand-in, all in {places.directory}")
            demo.watch(view, "running", lambda now: stop.is_set() or now.elapsed_s >= seconds)
            return demo.finish(view, stop)


@contextlib.contextmanager
def opened_view(stream: TextIO, terminal: str) -> Iterator[View]:
    """The view that suits `stream`; `terminal` is the kind of terminal ($TERM)."""
    if stream.isatty() and terminal not in ("", "dumb"):
        from teg.simulator.demo.screen import screen_view  # rich is needed in a terminal only

        with screen_view(stream) as view:
            yield view
    else:
        yield PlainView(stream)


def conclude(last: Snapshot) -> int:
    """Print the account; 0 only if something was recorded and all of it arrived."""
    way = last.on_the_way
    if last.missing and way.inbox + way.archive:
        print(f"of what is lost below, {way.inbox + way.archive} records are safe on disk, not yet delivered")
    if last.first_arrival_s is not None:
        print(f"first arrival {last.first_arrival_s:.1f} s after the start")
    print(last.account(), flush=True)
    return 0 if last.recorded.total and not last.missing else 1


class Demo:
    """The three processes and what can be seen of them. Everything is stopped when `children` is left."""

    def __init__(self, places: Places, children: contextlib.ExitStack) -> None:
        self._started_s = time.monotonic()
        self._places = places
        self._children = children
        self._running: list[Child] = []
        self._first_arrival_s: float | None = None
        self._environment = neutral_environment(os.environ, ROOT / ".env")
        places.create()
        self._server = self._start("server", server_command(places), {})
        self._controller = self._start("controller", controller_command(places), controller_settings(places))
        self._gateway = self._start("gateway", GATEWAY_COMMAND, gateway_settings(places, self._listening()))

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def watch(self, view: View, phase: str, over: Callable[[Snapshot], bool]) -> None:
        """Show what happens until `over`; raise ChildFailed when one of the three ends by itself."""
        while True:
            now = self.look(phase)
            view.show(now)
            if over(now):
                return
            for child in self._running:
                child.check()
            time.sleep(LOOK_EVERY_S)

    def finish(self, view: View, stop: threading.Event) -> Snapshot:
        """Controller first, then what it left on the way, then the gateway, then the server; a new stop hurries."""
        stop.clear()
        self._stop(self._controller)
        drained_by_s = self.elapsed_s + DRAIN_S
        self.watch(view, "draining", lambda now: now.is_settled or now.elapsed_s > drained_by_s or stop.is_set())
        self._stop(self._gateway)
        self._stop(self._server)
        last = self.look("stopped")
        view.show(last)
        return last

    def look(self, phase: str) -> Snapshot:
        places = self._places
        now = Snapshot(
            self.elapsed_s,
            read_recorded(places.account_file),
            read_on_the_way(places.inbox, places.gateway_data / "gateway.db"),
            read_arrived(places.server_account, DEVICE),
            phase=phase,
        )
        if self._first_arrival_s is None and now.delivered:
            self._first_arrival_s = now.elapsed_s
        return replace(now, first_arrival_s=self._first_arrival_s)

    def _start(self, name: str, command: Sequence[str | Path], settings: Mapping[str, str]) -> Child:
        child = Child(name, command, {**self._environment, **settings}, self._places.logs, ROOT)
        self._children.callback(child.stop)
        self._running.append(child)
        return child

    def _stop(self, child: Child) -> None:
        self._running.remove(child)
        child.stop()

    def _listening(self) -> Mapping[str, Any]:
        """Where the server can be reached; it says so in its first line as soon as it can."""
        while not (line := self._server.first_line()):
            self._server.check()
            if self.elapsed_s > START_S:
                raise ChildFailed(self._server, f"does not listen after {START_S:g} s")
            time.sleep(0.01)
        listening: Mapping[str, Any] = json.loads(line)["listening"]
        return listening


def server_command(places: Places) -> list[str | Path]:
    command: list[str | Path] = [sys.executable, "-m", "teg.simulator.thingsboard", "--port", "0"]
    command += ["--tls-dir", places.directory / "tls", "--device", f"{DEVICE}:{TOKEN}"]
    return [*command, "--interval", str(LOOK_EVERY_S), "--state-file", places.server_account]


def controller_command(places: Places) -> list[str | Path]:
    return [sys.executable, "-m", "teg.simulator.example_controller", "--account-file", places.account_file]


def controller_settings(places: Places) -> dict[str, str]:
    return {"TEG_CONTROLLER_DATA_PATH": str(places.controller_data)}


def gateway_settings(places: Places, server: Mapping[str, Any]) -> dict[str, str]:
    return {
        "TB_HOST": server["host"],
        "TB_PORT": str(server["port"]),
        "THINGSBOARD_CA_CERT": server["ca_file"],
        "THINGSBOARD_ACCESS_TOKEN": str(places.token_file),
        "TEG_DATA_PATH": str(places.gateway_data),
        "TEG_CONTROLLER_DATA_PATH": str(places.controller_data),
        "TEG_CONTROLLER_RUNTIME": "none",  # the demo starts the controller itself
    }


def neutral_environment(environment: Mapping[str, str], env_file: Path) -> dict[str, str]:
    """Without what the user has set for a real gateway, here or in `.env`: an empty variable means "not set"."""
    text = env_file.read_text(errors="replace") if env_file.exists() else ""
    names = {*environment, *re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE)}
    ours = [name for name in names if name.startswith(("TB_", "TEG_", "THINGSBOARD_")) or name == "LOG_LEVEL"]
    return {**environment, **dict.fromkeys(ours, "")}


if __name__ == "__main__":
    sys.exit(main())
