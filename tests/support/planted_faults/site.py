"""A site at which everything is right, and the list of what may be wrong with it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.running import PROJECT, ControllerInbox, RunningGateway

TEG = Path(sys.executable).parent / "teg"


@dataclass
class Site:
    """A site at which everything is right; a fault changes one thing of it."""

    directory: Path
    server: ThingsBoard
    gateway: RunningGateway
    inbox: ControllerInbox
    stack: ExitStack
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def device(self) -> Device:
        return self.server.device("pi")

    def teg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TEG, *arguments],
            env={**self.gateway.environment, **self.environment},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def serve(self, tls: ServerTls | None) -> None:
        """Another server in its place, in plain text or with another certificate."""
        server = self.stack.enter_context(ThingsBoard(tls=tls))
        server.add_device("pi", token="T1")
        self.environment |= {"TB_PORT": str(server.port)}

    def mount(self, place: Path, *arguments: str) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        subprocess.run(["mount", *arguments, place], check=True)
        self.stack.callback(lambda: subprocess.run(["umount", place], check=True))

    def start(self) -> None:
        self.stack.callback(self.gateway.kill)
        self.gateway.environment |= self.environment
        self.gateway.start()


@contextmanager
def site_in(directory: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        tls = ServerTls.create(directory / "tls")
        server = stack.enter_context(ThingsBoard(tls=tls))
        server.add_device("pi", token="T1")
        secure = {"TB_TLS": "on", "THINGSBOARD_CA_CERT": str(tls.ca_file)}
        gateway = RunningGateway(directory, "localhost", server.port, "T1", **secure)
        gateway.data_path.chmod(0o700)
        inbox = stack.enter_context(closing(ControllerInbox(gateway.inbox_path)))
        inbox.heartbeat(time.time_ns() // 1_000_000)
        yield Site(directory, server, gateway, inbox, stack)


FAULTS: dict[str, tuple[Callable[[Site], object], str]] = {}


def fault(first_line: str) -> Callable[[Callable[[Site], object]], Callable[[Site], object]]:
    """`first_line` is the beginning of it, a regular expression."""

    def note(plant: Callable[[Site], object]) -> Callable[[Site], object]:
        FAULTS[plant.__name__] = (plant, first_line)
        return plant

    return note
