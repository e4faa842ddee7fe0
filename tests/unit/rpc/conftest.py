"""Calls over a real journal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rpc import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "gateway.db")
    yield rig
    rig.database.close()
