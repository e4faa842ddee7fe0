"""What is in quarantine does not grow for ever, and nothing goes whose rows are nowhere else."""

from pathlib import Path

import pytest

from teg.adapters.gateway_db import quarantine


def set_of(path: Path, kind: str, size: int) -> Path:
    path.write_bytes(b"x" * size)
    folder = quarantine.move_aside(path)
    assert folder is not None
    quarantine.note(folder, kind, "why")
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


def test_the_oldest_that_are_not_needed_go_until_the_rest_fits(path: Path) -> None:
    sets = [set_of(path, kind, 1000) for kind in (quarantine.DONE, quarantine.KEPT_ONLY, quarantine.DONE)]
    assert quarantine.prune(path, 2500) == 1
    assert [folder.exists() for folder in sets] == [False, True, True]
    assert quarantine.prune(path, 2500) == 0


def test_a_set_that_waits_for_its_salvage_stays_whatever_it_takes(path: Path) -> None:
    waiting = set_of(path, quarantine.TO_SALVAGE, 100_000)
    unnoted = set_of(path, "somebody's note", 100_000)
    done = set_of(path, quarantine.DONE, 10)
    assert quarantine.prune(path, 0) == 1
    assert (waiting.exists(), unnoted.exists(), done.exists()) == (True, True, False)


def test_without_a_quarantine_there_is_nothing_to_do(path: Path) -> None:
    assert quarantine.prune(path, 0) == 0


def test_a_link_in_it_is_not_followed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("stays")
    folder = set_of(path, quarantine.DONE, 10)
    (folder / "link").symlink_to(other)
    assert quarantine.prune(path, 0) == 1
    assert (other / "file").exists()
