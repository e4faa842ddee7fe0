"""A root, and a folder beside it in which nothing may ever change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.confined_files import ConfinedFiles
from teg.domain.files.ports import FileStore
from tests.support.confined import SECRET


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(SECRET)
    return outside


@pytest.fixture
def store(root: Path) -> FileStore:
    """Typed as the port: that the adapter keeps its shape is checked by mypy."""
    return ConfinedFiles([root])


@pytest.fixture(autouse=True)
def nothing_outside_changes(outside: Path) -> Iterator[None]:
    before = (outside / "victim").stat()
    yield
    assert [path.name for path in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_bytes() == SECRET
    after = (outside / "victim").stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
