"""A server, a device on it and its gateway."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.rpc_gateway import running
from tests.support.running import RunningGateway


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        yield server


@pytest.fixture
def device(server: ThingsBoard) -> Device:
    return server.add_device("pi-07", token="T1")


@pytest.fixture
def gateway(server: ThingsBoard, device: Device, tmp_path: Path) -> Iterator[RunningGateway]:
    with running(server, device, tmp_path) as gateway:
        yield gateway
