"""Retention: by growth, not by the hour; a nearly full disk costs history, never undelivered measurements."""

from pathlib import Path

import pytest

from teg.adapters.ballast import Ballast
from teg.domain.errors import Unavailable
from teg.domain.telemetry.retention import EVERY_S, Retention
from tests.support.links import ArchiveSizes, FakeClock, FakeDisk

MIB = 1 << 20


def built(archive: ArchiveSizes, disk: FakeDisk, clock: FakeClock | None = None) -> Retention:
    return Retention(archive, disk, clock or FakeClock(), 100 * MIB, None)


def test_it_is_due_at_the_start_after_an_hour_and_as_soon_as_the_archive_outgrew_its_quota() -> None:
    archive, clock = ArchiveSizes(), FakeClock()
    retention = built(archive, FakeDisk(), clock)
    assert retention.due
    retention.run()
    assert not retention.due
    archive.size = 100 * MIB + 1
    assert retention.due
    retention.run()
    assert archive.size == 100 * MIB
    assert not retention.due
    clock.s += EVERY_S
    assert retention.due


def test_a_disk_that_gets_tight_is_given_space_back() -> None:
    archive, disk = ArchiveSizes(), FakeDisk(free=MIB)
    retention = built(archive, disk)
    retention.run()
    assert archive.asked == [(100 * MIB, 49 * MIB)], "the quota is not touched: undelivered measurements stay"
    assert disk.held


def test_where_there_is_room_history_goes_only_for_the_quota() -> None:
    """A size that was looked at before would cut an archive that grows meanwhile back by its growth."""
    archive = ArchiveSizes()
    built(archive, FakeDisk()).run()
    assert archive.asked == [(100 * MIB, None)]


def test_a_full_disk_gets_the_ballast(caplog: pytest.LogCaptureFixture) -> None:
    disk = FakeDisk(free=0)
    retention = built(ArchiveSizes(), disk)
    for _ in range(3):
        retention.run()
        disk.free = 0 if disk.held else disk.free
    assert not disk.held
    assert caplog.text.count("the disk is full") == 1
    disk.free = 100 * MIB
    assert retention.due, "to take the ballast again"
    retention.run()
    assert disk.held
    assert not retention.due


def test_the_ballast_is_made_of_real_blocks(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast")
    assert not ballast.held
    ballast.take()
    assert ballast.held
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= ballast.size_bytes > 0
    ballast.let_go()
    ballast.let_go()
    assert not ballast.held


def test_no_room_for_the_ballast_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ballast = Ballast(tmp_path / "ballast")
    monkeypatch.setattr("os.posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(Unavailable, match="No space left"):
        ballast.take()
    assert not ballast.held
