"""A supervisor with everything around it in memory."""

from pathlib import Path

import pytest

from tests.support.controllers import Supervised


@pytest.fixture
def around(tmp_path: Path) -> Supervised:
    return Supervised(tmp_path)
