"""A remote repository, its clone on the device, and the adapter on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.git_repository import GitRepository
from tests.support.repositories import commit, git


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """The operator's repository, with v1 in it."""
    path = tmp_path / "remote"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    commit(path, {"docker/Dockerfile": "FROM scratch\n", "docker/main.py": "print('v1')\n"}, "v1")
    return path


@pytest.fixture
def local(tmp_path: Path, remote: Path) -> Path:
    """The clone on the device."""
    path = tmp_path / "local"
    git(tmp_path, "clone", "-q", str(remote), str(path))
    return path


@pytest.fixture
def repository(tmp_path: Path, local: Path) -> GitRepository:
    return GitRepository(
        local / ".git", local / "docker", "./Dockerfile", tmp_path / "checkouts", signers=tmp_path / "signers"
    )


@pytest.fixture(autouse=True)
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that hostile content tries to make; it must not exist in the end."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()
