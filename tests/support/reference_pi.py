"""A Pi with the reference gateway on it, and the commands of docs/changing-over.md that lead away from it."""

import hashlib
import os
import subprocess
from pathlib import Path

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.documented_commands import commands
from tests.support.legacy import Reference
from tests.support.running import message

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


def write_start_script(pi: Pi) -> None:
    lines = [f'export {name}="{value}"' for name, value in pi.variables.items()]
    (pi.home / "start_gateway.sh").write_text(
        "\n".join(["#!/bin/bash", "# export TEG_DATA_PATH=/elsewhere", *lines, "python3 src/main.py --tb-host h"])
    )


def start_script(pi: Pi) -> None:
    write_start_script(pi)
    pi.type(SCRIPT)


def runner(pi: Pi) -> None:
    """It saw the host's files below /host."""
    pi.docker_prints([f"{name}={value.replace('/', '/host/', 1)}" for name, value in pi.variables.items()])
    pi.type(RUNNER)


def compose(pi: Pi) -> None:
    pi.docker_prints([f"{name}={value}" for name, value in pi.variables.items()])
    pi.type(COMPOSE)


KINDS = {"start script": start_script, "runner": runner, "compose": compose}


def fingerprints(directory: Path) -> dict[str, str]:
    files = [path for path in directory.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
