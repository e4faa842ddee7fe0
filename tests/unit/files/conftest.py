"""A device with remote files, in memory but for the files."""

from pathlib import Path

import pytest

from tests.support.remote_files import Device, FailingStore


@pytest.fixture
def device(tmp_path: Path) -> Device:
    root = tmp_path / "controller"
    root.mkdir()
    return Device(root)


@pytest.fixture
def failing(device: Device) -> FailingStore:
    """Its store, whose writes can be made to fail."""
    store = FailingStore(device.store)
    device.store = store
    device.restart_process()
    return store
