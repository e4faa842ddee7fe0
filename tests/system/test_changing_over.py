"""docs/changing-over.md played through: each kind of the reference's installations, by the commands that stand there;
the preflight, what arrives, and the way back."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.documented_commands import commands
from tests.support.legacy import Reference
from tests.support.planted_faults.site import TEG
from tests.support.running import RunningGateway, measurements, message, wait_until

PAGE = [command.text for command in commands() if command.page == "changing-over.md"]
SCRIPT, RUNNER, COMPOSE, BACK = (
    next(text for text in PAGE if text.startswith(beginning))
    for beginning in ("sed ", "docker inspect ", "docker compose ", "cp -p ")
)


class Pi:
    """What the reference has left: one directory with everything, 3 records archived, 2 of them not sent, 1 new."""

    def __init__(self, directory: Path, server: ThingsBoard) -> None:
        self.home, self.settings = directory / "pi", directory / "teg.env"
        self.data = self.home / "data"
        self.data.mkdir(parents=True)
        self.server = server
        self.device: Device = server.add_device("pi", token="T1")
        (self.data / "tb_access_token").write_text("T1")
        (self.data / "last_launched_controller_version.txt").write_text("v1.2")
        reference = Reference(self.data)
        for number in (1, 2, 3):
            reference.archived(number)
        for number in (2, 3):
            reference.queued(number)
        reference.inbox.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, type text, message text)")
        reference.inbox.execute("INSERT INTO messages (type, message) VALUES ('measurement', ?)", (message(4),))
        reference.close()
        self.variables = {
            "TEG_DATA_PATH": str(self.data),
            "TEG_CONTROLLER_DATA_PATH": str(self.data),
            "TEG_CONTROLLER_LOGS_PATH": str(self.data / "logs"),
            "THINGSBOARD_ACCESS_TOKEN": str(self.data / "tb_access_token"),
            "LOG_LEVEL": "WARN",
        }

    def type(self, command: str, **environment: str) -> None:
        """A command of the page, at this machine's places."""
        for place, here in (
            ("/etc/teg/teg.env", self.settings),
            ("deploy/teg.env", self.settings),
            ("/home/pi", self.home),
        ):
            command = command.replace(place, str(here))
        done = subprocess.run(
            ["bash", "-ec", f"set -o pipefail; {command.replace('| sudo ', '| ')}"],
            env={"PATH": f"{self.home}/bin:/usr/bin:/bin", **environment},
            stdout=subprocess.DEVNULL,
            timeout=60,
        )
        assert done.returncode == 0

    def docker_prints(self, lines: list[str]) -> None:
        """In place of `docker`: what it prints of the old container."""
        program = self.home / "bin" / "docker"
        program.parent.mkdir()
        (self.home / "printed").write_text("\n".join(["PATH=/usr/bin", *lines, "HOME=/root"]) + "\n")
        program.write_text(f"#!/bin/sh\ncat {self.home}/printed\n")
        program.chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Of the service: nothing but where its settings are."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "TEG_ENV_FILE": str(self.settings)}


@pytest.fixture
def pi(tmp_path: Path) -> Iterator[Pi]:
    with ThingsBoard() as server:
        yield Pi(tmp_path, server)


def start_script(pi: Pi) -> None:
    lines = [f'export {name}="{value}"' for name, value in pi.variables.items()]
    (pi.home / "start_gateway.sh").write_text(
        "\n".join(["#!/bin/bash", "# export TEG_DATA_PATH=/elsewhere", *lines, "python3 src/main.py --tb-host h"])
    )
    pi.type(SCRIPT)


def runner(pi: Pi) -> None:
    """It saw the host's files below /host."""
    pi.docker_prints([f"{name}={value.replace('/', '/host/', 1)}" for name, value in pi.variables.items()])
    pi.type(RUNNER)


def compose(pi: Pi) -> None:
    pi.docker_prints([f"{name}={value}" for name, value in pi.variables.items()])
    pi.type(COMPOSE)


KINDS = {"start script": start_script, "runner": runner, "compose": compose}


def changed_over(pi: Pi, directory: Path, kind: str) -> RunningGateway:
    KINDS[kind](pi)
    with pi.settings.open("a") as settings:
        settings.write(f"TB_HOST={pi.server.host}\nTB_PORT={pi.server.port}\nTB_TLS=off\nTEG_CONTROLLER_RUNTIME=none\n")
    before = fingerprints(pi.data)
    shown = subprocess.run(
        [TEG, "migrate", "--dry-run"], env=pi.environment(), cwd=directory, capture_output=True, text=True, timeout=60
    )
    assert shown.returncode in (0, 1), shown.stdout + shown.stderr
    assert f"✓ database: {pi.data}/gateway_archive.db" in shown.stdout
    assert fingerprints(pi.data) == before, "the preflight changes nothing"
    gateway = RunningGateway(directory / "gateway", pi.server.host, pi.server.port, "")
    gateway.environment = pi.environment()
    gateway.data_path = pi.home / "data-private"
    return gateway


def fingerprints(directory: Path) -> dict[str, str]:
    files = [path for path in directory.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_installation_changes_over_and_loses_nothing(pi: Pi, tmp_path: Path, kind: str) -> None:
    archive = fingerprints(pi.data)["gateway_archive.db"]
    with changed_over(pi, tmp_path, kind) as gateway:
        expected = measurements(2, 4)
        pi.device.wait_for(lambda device: expected.keys() <= device.telemetry().keys(), 60, "what was not sent yet")
        wait_until(lambda: gateway.archived() == 4, 30, "the history, too")
        assert gateway.stop() == 0
    assert ("n", next(iter(measurements(1, 1)))[1]) not in pi.device.telemetry(), (
        "what the old one had sent is not again"
    )
    assert fingerprints(pi.data)["gateway_archive.db"] == archive, "the old databases are only read"


def test_the_way_back_is_the_documented_copy(pi: Pi, tmp_path: Path) -> None:
    with changed_over(pi, tmp_path, "start script") as gateway:
        pi.device.wait_connected(60)
        wait_until(lambda: not (pi.data / "tb_access_token").exists(), 30, "the token has moved")
        assert gateway.stop() == 0
    pi.type(BACK)
    assert (pi.data / "tb_access_token").read_text() == "T1"
    assert (pi.data / "last_launched_controller_version.txt").read_text() == "v1.2"
    assert {"gateway_archive.db", "communication_queue.db", "gateway_logs_buffer.db"} <= fingerprints(pi.data).keys()
