"""A stand-in, a device on it, and sessions that end with the test."""

from collections.abc import Iterator

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.session_client import Client
from tests.support.threads import runs


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        yield server


@pytest.fixture
def device(server: ThingsBoard) -> Device:
    return server.add_device("pi-07", token="T1")


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    clients: list[Client] = []
    yield clients
    for client in clients:
        client.session.stop()
        assert not runs("mqtt-session"), "the session's thread did not end"


@pytest.fixture
def client(server: ThingsBoard, device: Device, clients: list[Client]) -> Client:
    clients.append(Client(server.port).start().connected())
    return clients[0]
