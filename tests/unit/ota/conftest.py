"""A device in memory."""

from pathlib import Path

import pytest

from tests.support.ota_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def empty(tmp_path: Path) -> World:
    """A device that has never run a controller."""
    return World(tmp_path, running=None)
