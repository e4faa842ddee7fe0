"""The gateway, its engine and its controller as one ordinary user (rootless Docker), as docs/security.md sets it up."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.engine import Engine, closing_client
from tests.support.ordinary_user import UID, becoming_ordinary, directory_of_the_user, give
from tests.support.ota_device import OtaDevice
from tests.support.rootless_engine import FIRST_ID, rootless_engine

pytestmark = [
    pytest.mark.docker,
    pytest.mark.torture,
    pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root"),
]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="teg-less-") as name:
        Path(name).chmod(0o755)
        (Path(name) / "engine").mkdir()
        with rootless_engine(Path(name) / "engine") as engine:
            yield engine


@pytest.fixture
def device(engine: Engine) -> Iterator[OtaDevice]:
    with ThingsBoard(packet_log=0) as server, directory_of_the_user() as directory:
        device = OtaDevice(directory, server, engine, TEG_CONTROLLER_LOGS_PATH=str(directory / "controller-logs"))
        give(directory)
        device.gateway.prefix = becoming_ordinary()
        with device.gateway:
            yield device


def status(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: values.split() for name, _, values in (line.partition(":") for line in lines)}


def test_nobody_is_root_and_everything_is_as_ever(device: OtaDevice) -> None:
    device.assign("v1")
    device.wait_told("UPDATED", "v1")
    device.wait_measured("v1")
    with closing_client(device.engine.client) as client:
        state = client.inspect_container("teg_controller")["State"]
        info = client.info()
    assert any("rootless" in option for option in info["SecurityOptions"])
    assert device.gateway.process is not None
    for pid in (device.gateway.process.pid, state["Pid"]):
        found = status(pid)
        assert (set(found["Uid"]), found["CapEff"]) == ({str(UID)}, ["0" * 16])
    assert device.gateway.inbox_path.stat().st_uid == UID != FIRST_ID
    device.assign("v3")
    device.wait_told("FAILED", "v1")
    device.wait_measured("v1")
    said = "this Docker Engine cannot limit the controller's memory" in device.gateway.log()
    assert said is not bool(info["MemoryLimit"]), (
        "without delegated control groups nothing is limited, and that is said"
    )
