"""docs/changing-over.md with a real engine: the reference's controller runs in its container, beside its gateway's.

What stands in for the reference: its image cannot be had here, so its containers are made as its scripts make them
(names, rights, mounts, variables) from an image that sleeps; the controller's works. `docker compose exec` is the
engine's `exec`. Where the machine cannot give all rights, the containers get the host's network and one right more.
"""

import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.domain.supervision.runtime import CONTAINER_NAME, image_name
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.engine import BASE_IMAGE, Engine, clean_engine, engine, make_image, write_context
from tests.support.ota_device import CONTROLLER
from tests.support.planted_faults.site import TEG
from tests.support.reference_pi import COMPOSE, RUNNER, SCRIPT, Pi, write_start_script
from tests.support.running import PROJECT, RunningGateway, measurements, wait_until

__all__ = ["clean_engine", "engine"]  # fixtures
pytestmark = [
    pytest.mark.docker,
    pytest.mark.torture,
    pytest.mark.skipif(os.geteuid() != 0, reason="an engine of our own needs root"),
]
OLD_RUNNER, COMPOSED = "thingsboard-edge-gateway-runner", "demo_gateway_1"
#: What the page says to stop the old runner for good with.
STOP = re.findall(r"`(docker (?:stop|update) [^`]*)`", (PROJECT / "docs" / "changing-over.md").read_text())


def _machine_has_all_rights() -> bool:
    """What `--privileged` gives must be ours to give: not in a container or a virtual machine that keeps some back."""
    status = Path("/proc/self/status").read_text()
    ours = int(re.findall(r"CapBnd:\s+(\w+)", status)[0], 16)
    return ours == (2 << int(Path("/proc/sys/kernel/cap_last_cap").read_text())) - 1


PRIVILEGED = _machine_has_all_rights()
RIGHTS = ("--privileged",) if PRIVILEGED else ("--cap-add=SYS_NICE",)


class Old:
    """The reference's installation of a kind, at work."""

    def __init__(self, pi: Pi, engine: Engine, kind: str) -> None:
        self.pi, self.engine, self.kind = pi, engine, kind
        make_image(engine, image_name("v1.2"), write_context(pi.home / "context", CONTROLLER_V1))
        (pi.data / "logs").mkdir()
        self.docker(
            *("run", "-d", "--name", CONTAINER_NAME, *RIGHTS, "--net=host", "--restart=on-failure:3"),
            *("-v", f"{pi.data}:/root/data", "-v", f"{pi.data}/logs:/root/logs", image_name("v1.2")),
        )
        START[kind](self)

    def docker(self, *arguments: object, check: bool = True) -> str:
        command = ["docker", "--host", self.engine.host, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    def run_gateway(self, name: str, prefix: str, *options: str) -> None:
        variables = [
            f"--env={name}={prefix + value if value.startswith('/') else value}"
            for name, value in self.pi.variables.items()
        ]
        self.docker("run", "-d", "--name", name, *options, *variables, BASE_IMAGE, "sleep", "3600")

    def type(self, command: str) -> None:
        self.pi.type(command, DOCKER_HOST=self.engine.host)

    def remove(self) -> None:
        for name in (OLD_RUNNER, COMPOSED, CONTAINER_NAME):
            self.docker("rm", "-f", name, check=False)


CONTROLLER_V1 = CONTROLLER.format(version="v1.2", behaviour="works")


def _runner(old: Old) -> None:
    as_its_script = (
        "--restart=unless-stopped",
        *RIGHTS,
        "-v",
        "/:/host",
        "--net=host",
        "--pid=host",
        "--ipc=host",
    )
    old.run_gateway(OLD_RUNNER, "/host", *as_its_script)


def _compose(old: Old) -> None:
    socket = old.engine.host.removeprefix("unix://")
    old.run_gateway(COMPOSED, "", "-v", f"{socket}:/var/run/docker.sock", "-v", f"{old.pi.data}:{old.pi.data}")
    program = old.pi.home / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$*" = "compose exec -T gateway env" ] && exec /usr/bin/docker exec {COMPOSED} env\nexit 9\n'
    )
    program.chmod(0o755)


START = {"start script": lambda old: write_start_script(old.pi), "runner": _runner, "compose": _compose}
RECIPE = {"start script": SCRIPT, "runner": RUNNER, "compose": COMPOSE}


@pytest.fixture
def pi(tmp_path: Path) -> Iterator[Pi]:
    with ThingsBoard() as server:
        yield Pi(tmp_path, server)


@pytest.fixture(params=START)
def old(request: pytest.FixtureRequest, pi: Pi, clean_engine: Engine) -> Iterator[Old]:
    old = Old(pi, clean_engine, request.param)
    yield old
    old.remove()


def preflight(old: Old) -> tuple[int, str]:
    shown = subprocess.run(
        [TEG, "migrate", "--dry-run"],
        env=old.pi.environment(),
        cwd=old.pi.home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return shown.returncode, shown.stdout + shown.stderr


def test_the_controller_that_runs_is_taken_over_and_nothing_is_lost(old: Old, tmp_path: Path) -> None:
    pi = old.pi
    wait_until(lambda: inserted(pi) > 5, 60, "the old controller measures")
    old.type(RECIPE[old.kind])
    with pi.settings.open("a") as settings:
        settings.write(
            f"TB_HOST={pi.server.host}\nTB_PORT={pi.server.port}\nTB_TLS=off\nDOCKER_HOST={old.engine.host}\n"
        )
    if old.kind == "runner":
        code, shown = preflight(old)
        assert code == 2 and shown.startswith(f"✗ old gateway: the container {OLD_RUNNER} runs"), shown
        for command in STOP:
            old.type(command)
    code, shown = preflight(old)
    assert code == 1 and ("controller: has all rights and keeps them" in shown) is PRIVILEGED, shown
    before = old.docker("inspect", "-f", "{{.Id}}", CONTAINER_NAME)

    gateway = RunningGateway(tmp_path / "gateway", pi.server.host, pi.server.port, "")
    gateway.environment, gateway.data_path = pi.environment(), pi.home / "data-private"
    with gateway:
        pi.device.wait_for(
            lambda device: measurements(2, 4).keys() <= device.telemetry().keys(), 60, "what was not sent"
        )
        wait_until(
            lambda: old.docker("inspect", "-f", "{{.Id}}", CONTAINER_NAME, check=False) not in ("", before), 60, "anew"
        )
        made = inserted(pi)
        wait_until(lambda: inserted(pi) > made + 5, 60, "the new container measures")
        form = "{{.HostConfig.Privileged}} {{.HostConfig.CapAdd}} {{.HostConfig.NetworkMode}}"
        kept = "true [] host" if PRIVILEGED else "false [SYS_NICE] host"
        assert old.docker("inspect", "-f", form, CONTAINER_NAME) == kept
        assert old.docker("inspect", "-f", '{{index .Config.Labels "teg.version"}}', CONTAINER_NAME) == "v1.2"
        assert "the controller keeps what the previous gateway gave it" in gateway.log()
        old.docker("pause", CONTAINER_NAME)
        last = inserted(pi)
        wait_until(lambda: from_the_controller(pi) == last - 1, 60, "each of its measurements, once")
        assert gateway.stop() == 0
    old.docker("unpause", CONTAINER_NAME)
    assert old.docker("inspect", "-f", "{{.State.Running}}", CONTAINER_NAME) == "true", "it goes on without the gateway"


def inserted(pi: Pi) -> int:
    with closing(sqlite3.connect(f"file:{pi.data}/communication_queue.db?mode=ro", uri=True, timeout=10)) as inbox:
        found = inbox.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        return int(found[0])


def from_the_controller(pi: Pi) -> int:
    return sum(1 for key, _ in pi.device.telemetry() if key == "controller")
