"""Calls in immediate mode, over the fakes of the rig."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rpc import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path / "gateway.db").serving() as rig:
        yield rig
