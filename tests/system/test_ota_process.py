"""Updates without Docker: the controller as a plain process, from Git, with a real gateway. Runs on any laptop."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.ota_device import TRIAL_S, make_repository
from tests.support.running import RunningGateway, wait_until


class Laptop:
    def __init__(self, directory: Path, server: ThingsBoard) -> None:
        self.device = server.add_device("laptop", token="T")
        repository = make_repository(directory / "controller-repository")
        self.gateway = RunningGateway(
            directory,
            server.host,
            server.port,
            "T",
            TEG_CONTROLLER_RUNTIME="process",
            TEG_CONTROLLER_COMMAND=f"{sys.executable} -u main.py",
            TEG_CONTROLLER_GIT_PATH=str(repository / ".git"),
            TEG_OTA_TRIAL_S=str(TRIAL_S),
        )

    def update(self, version: str, state: str, running: str) -> str:
        """Assign and wait for the end; returns `sw_error`."""
        before = len(self.told())
        self.device.assign_software("controller", version)
        wait_until(
            lambda: self.told()[before:] and self.told()[-1][:2] == (state, running),
            60,
            f"{state} with {running} running",
        )
        return self.told()[-1][2]

    def told(self) -> list[tuple[str, str, str]]:
        return [
            (values["sw_state"], values["current_sw_version"], values["sw_error"])
            for _, values in self.device.records()
            if "sw_state" in values
        ]

    def wait_measured(self, version: str) -> None:
        since_ms = int(time.time() * 1000)
        self.device.wait_for(
            lambda device: any(
                ts >= since_ms and values.get("controller") == version for ts, values in device.records()[-100:]
            ),
            30,
            f"a measurement of {version}",
        )


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Laptop]:
    with ThingsBoard(packet_log=0) as server:
        laptop = Laptop(tmp_path, server)
        with laptop.gateway:
            yield laptop
            laptop.gateway.stop()


@pytest.mark.slow
def test_update_and_rollback_without_docker(laptop: Laptop) -> None:
    laptop.update("v1", "UPDATED", "v1")
    laptop.wait_measured("v1")
    laptop.update("v2", "UPDATED", "v2")
    laptop.wait_measured("v2")
    assert "the sensor of v3 does not answer" in laptop.update("v3", "FAILED", "v2")
    assert "sent no heartbeat" in laptop.update("v4", "FAILED", "v2")
    laptop.wait_measured("v2")


def test_sources_this_runtime_cannot_serve_are_refused_in_words(laptop: Laptop) -> None:
    laptop.update("v1", "UPDATED", "v1")
    before = len(laptop.told())
    laptop.device.assign_software("controller", "p1", b"an archive" * 100)
    wait_until(lambda: "FAILED" in [state for state, _, _ in laptop.told()[before:]], 60, "the refusal of a package")
    assert laptop.told()[-1][1] == "v1"
    laptop.wait_measured("v1")
