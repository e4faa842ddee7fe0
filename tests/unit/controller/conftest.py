"""The controller's client on a real file, with a clock that tests can move."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller_client import Gateway
from tests.support.client_file import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "communication_queue.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gateway(path: Path, clock: FakeClock) -> Iterator[Gateway]:
    with Gateway(path, retry_s=5, clock=clock) as gateway:
        yield gateway
