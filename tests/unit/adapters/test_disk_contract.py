"""The promise of `telemetry.retention.Disk`, kept by the ballast on a real partition and by what retention is tested
with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from teg.adapters.ballast import Ballast
from teg.domain.errors import Unavailable
from teg.domain.telemetry.retention import Disk
from tests.support.links import FakeDisk

KINDS: dict[str, Callable[[Path], Disk]] = {
    "on the partition": lambda directory: Ballast(directory / "ballast"),
    "in memory": lambda _: FakeDisk(held=False),
}


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return KINDS[request.param](tmp_path)


def held(disk: Disk) -> bool:
    """Asked anew: it changes between two looks."""
    return disk.held


def test_it_is_held_from_take_to_let_go(disk: Disk) -> None:
    assert not held(disk)
    disk.take()
    assert held(disk)
    disk.let_go()
    assert not held(disk)


def test_both_may_be_done_twice(disk: Disk) -> None:
    disk.take()
    disk.take()
    assert held(disk)
    disk.let_go()
    disk.let_go()
    assert not held(disk)


def test_there_is_room_for_it_where_it_was_taken(disk: Disk) -> None:
    assert 0 < disk.size_bytes <= disk.free_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_taken_is_not_held(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = KINDS[kind](tmp_path)
    if isinstance(disk, FakeDisk):
        disk.free = 0
    else:
        monkeypatch.setattr("os.posix_fallocate", _full)
    with pytest.raises(Unavailable):
        disk.take()
    assert not held(disk)


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")
