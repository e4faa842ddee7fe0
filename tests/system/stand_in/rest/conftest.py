"""A stand-in with its REST API, and a tenant who uses it."""

from collections.abc import Iterator

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.rest import Rest


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(rest_port=0) as server:
        yield server


@pytest.fixture
def rest(server: ThingsBoard) -> Iterator[Rest]:
    rest = Rest(server.rest_url)
    yield rest
    rest.close()
