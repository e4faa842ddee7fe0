"""What the demo is made of: the stand-in in this process, the real gateway, and the controller that it supervises."""

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from teg.simulator.demo.account import Arrived, Snapshot, read_on_the_way, read_recorded
from teg.simulator.demo.children import Child, descendants, refuse_writes
from teg.simulator.demo.environment import BOUND_TO_US, GATEWAY_COMMAND, gateway_environment
from teg.simulator.demo.places import TOKEN, Places
from teg.simulator.demo.unsynced import drop_unsynced
from teg.simulator.demo.versions import make_versions
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls

DEVICE = "demo-device"
#: What systemd would do with a gateway that was killed.
START_AGAIN_S = 1.0
BACKLOG_POINTS = 60
BACKLOG_EVERY_S = 0.5
PAGE_BYTES = 4096


class World:
    """Everything is stopped when `stack` is left. `heard` gets what the gateway logs, line by line."""

    def __init__(self, places: Places, stack: contextlib.ExitStack, heard: Callable[[str], object]) -> None:
        self._started_s = time.monotonic()
        self._heard = heard
        self._first_arrival_s: float | None = None
        self._start_again_s: float | None = None
        self._backlog: deque[int] = deque(maxlen=BACKLOG_POINTS)
        self.places = places
        places.create()
        stack.enter_context(places.held())
        make_versions(places)
        tls = ServerTls.create(places.directory / "tls")
        self.server = ThingsBoard(tls=tls, packet_log=0)
        stack.enter_context(self.server)
        self.device: Device = self.server.add_device(DEVICE, TOKEN)
        self.network = True
        #: The gateway's own status page, for the browser of this machine.
        self.page = f"127.0.0.1:{_free_port()}"
        self._environment = gateway_environment(places, self.server.host, self.server.port, tls.ca_file, self.page)
        stack.callback(self.stop)
        self.gateway = self._start_gateway()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def tend(self) -> None:
        """Start the gateway again after a blow of ours; raise ChildFailed when it ended by itself."""
        if self._start_again_s is None:
            self.gateway.check()
        elif time.monotonic() >= self._start_again_s:
            self._start_again_s = None
            self.gateway = self._start_gateway()

    def look(self, phase: str) -> Snapshot:
        device = self.device
        arrived = Arrived(
            device.connected, device.points_per_key(), device.latest_values(), device.duplicates, device.publish_count
        )
        now = Snapshot(
            self.elapsed_s,
            read_recorded(self.places.account_file),
            read_on_the_way(self.places.inbox, self.places.gateway_db),
            arrived,
            phase=phase,
        )
        if self._first_arrival_s is None and now.delivered:
            self._first_arrival_s = now.elapsed_s
        if now.elapsed_s >= len(self._backlog) * BACKLOG_EVERY_S or len(self._backlog) == BACKLOG_POINTS:
            self._backlog.append(now.missing)
        return replace(now, first_arrival_s=self._first_arrival_s, backlog=tuple(self._backlog))

    # --- what can be done to it ----------------------------------------------------------------------------

    def switch_network(self, on: bool) -> None:
        self.network = on
        if on:
            self.server.start_listening()
        else:
            self.server.stop_listening(drop_connections=True)

    def kill_gateway(self) -> bool:
        """False when it is down already."""
        if not self.gateway.running:
            return False
        self.gateway.kill()
        self._start_again_s = time.monotonic() + START_AGAIN_S
        return True

    def kill_controller(self) -> bool:
        """False when none runs just now."""
        pid = self.controller_pid()
        return pid is not None and _kill(pid)

    def cut_power(self) -> int:
        """Everything on the device ends at once, and what was not flushed is gone: return how many bytes.

        The queue is never flushed, so all of it goes.
        """
        children = descendants(self.gateway.pid)
        controller = self.controller_pid()
        self.gateway.kill()
        for pid in {*children, *({controller} if controller is not None else ())}:
            _kill(pid)
            _wait_gone(pid)
        self._start_again_s = time.monotonic() + START_AGAIN_S
        gone = drop_unsynced(self.places.gateway_db) + drop_unsynced(self.places.inbox)
        gone += sum(file.stat().st_size for file in self.places.queue.glob("*"))
        shutil.rmtree(self.places.queue, ignore_errors=True)
        return gone

    def refuse_writes(self, refused: bool) -> bool:
        """False when the gateway is down. What it started meanwhile inherited the refusal, and loses it with it."""
        if not self.gateway.running:
            return False
        controller = self.controller_pid()
        started = () if refused else (*descendants(self.gateway.pid), *((controller,) if controller else ()))
        for pid in (self.gateway.pid, *started):
            refuse_writes(pid, refused)
        return True

    def gateway_db_pages(self) -> int:
        path = self.places.gateway_db
        return path.stat().st_size // PAGE_BYTES if path.exists() else 0

    def corrupt_page(self, page: int) -> None:
        """As a failing card would: behind the back of everybody who has the file open."""
        with self.places.gateway_db.open("r+b") as file:
            os.pwrite(file.fileno(), b"\xa5" * PAGE_BYTES, page * PAGE_BYTES)

    def controller_pid(self) -> int | None:
        """As the gateway noted it, if that process is our controller."""
        try:
            pid = int(json.loads(self.places.running_controller.read_text())["pid"])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, KeyError):
            return None
        return pid if b"main.py" in command else None

    # --- the end -------------------------------------------------------------------------------------------

    def stop_controller(self) -> None:
        """The gateway would start it again, so it is stopped first; the controller then finishes its write."""
        self.gateway.stop()
        pid = self.controller_pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            _wait_gone(pid)

    def start_without_controller(self) -> None:
        """Deliver what is left."""
        self._environment["TEG_CONTROLLER_RUNTIME"] = "none"
        self._start_again_s = None
        self.gateway = self._start_gateway()

    def stop(self) -> None:
        """Harmless twice; also ends a controller that outlived its gateway."""
        self.gateway.stop()
        if (pid := self.controller_pid()) is not None:
            _kill(pid)
            _wait_gone(pid)

    def _start_gateway(self) -> Child:
        directory, command = self.places.program, (*BOUND_TO_US, str(os.getpid()), *GATEWAY_COMMAND)
        return Child("gateway", command, self._environment, self.places.logs, directory, self._heard)


def _free_port() -> int:
    """Whoever takes it before the gateway does has it: then there is no page, and the gateway says so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _kill(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _wait_gone(pid: int, patience_s: float = 5.0) -> None:
    """Not our child once its gateway is gone; so its number is looked for."""
    until_s = time.monotonic() + patience_s
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until_s:
        time.sleep(0.02)
