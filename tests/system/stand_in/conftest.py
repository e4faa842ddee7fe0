"""A stand-in with a device on it, and the device's client."""

from collections.abc import Iterator

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.stand_in_client import PahoDevice


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        yield server


@pytest.fixture
def device(server: ThingsBoard) -> Device:
    return server.add_device("pi-07", token="T1")


@pytest.fixture
def client(server: ThingsBoard, device: Device) -> Iterator[PahoDevice]:
    client = PahoDevice("T1").opened(server.host, server.port)
    yield client
    client.close()
