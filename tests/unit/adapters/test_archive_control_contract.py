"""The promises of `rpc.ports.ArchiveControl` and `telemetry.retention.Maintenance`, kept by the archive and its fakes.

What the calls are tested with counts ten rows in every range, so what is compared is which names an answer has, and of
which kind.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from teg.domain.rpc.ports import ArchiveControl
from teg.domain.telemetry.retention import Maintenance
from tests.support.links import ArchiveSizes
from tests.support.outboxes import TS, Archive
from tests.support.rpc import FakeArchive


@pytest.fixture
def real(tmp_path: Path) -> Iterator[ArchiveControl]:
    archive = Archive(tmp_path)
    archive.store(*range(10))
    archive.database.rows("SELECT 1")
    with archive.database.transaction() as connection:
        connection.execute(
            "INSERT INTO dead_letter (source_row, type, message, reason, set_aside_ms) VALUES (1, 'm', 'x', 'why', ?)",
            (TS,),
        )
    yield archive.maintenance
    archive.database.close()


def assert_shape(fake: Mapping[str, Any], real: Mapping[str, Any]) -> None:
    """Each name of the fake's is one of the real one's, with a value of the same kind."""
    assert fake.keys() <= real.keys()
    assert {name: type(fake[name]) for name in fake} == {name: type(real[name]) for name in fake}


def test_counts(real: ArchiveControl) -> None:
    assert_shape(FakeArchive().counts(), real.counts())


def test_stats(real: ArchiveControl) -> None:
    assert_shape(FakeArchive().stats(TS, TS + 9), real.stats(TS, TS + 9))


def test_dead_letters(real: ArchiveControl) -> None:
    [fake], [letter] = FakeArchive().dead_letters(5, None), real.dead_letters(5, None)
    assert_shape(fake, letter)


@pytest.mark.parametrize("kind", ["real", "fake"])
def test_what_is_done_is_counted(real: ArchiveControl, kind: str) -> None:
    archive: ArchiveControl = real if kind == "real" else FakeArchive()
    heard: list[int] = []
    marked = archive.mark_for_publishing(TS, TS + 9, heard.append)
    retried, dropped = archive.retry_dead_letters([]), archive.drop_dead_letters([])
    assert [type(count) for count in (marked, archive.kept(TS, TS + 9), retried, dropped)] == [int] * 4
    assert heard == sorted(heard)
    assert type(archive.discard(TS, TS + 9)) is int


@pytest.fixture(params=["real", "fake"])
def sizes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maintenance]:
    if request.param == "fake":
        yield ArchiveSizes()
        return
    archive = Archive(tmp_path)
    archive.store(*range(1, 4001), size=1000)
    yield archive.maintenance
    archive.database.close()


def test_an_archive_within_its_quota_keeps_everything(sizes: Maintenance) -> None:
    before = sizes.file_bytes()
    assert sizes.shrink(before * 4, None) == {"expired": 0, "evicted": 0}
    sizes.checkpoint()
    assert sizes.file_bytes() >= before // 2
    assert sizes.prune_quarantine(0) == 0, "nothing was damaged"


def test_a_smaller_quota_is_kept(sizes: Maintenance) -> None:
    quota = sizes.file_bytes() // 2
    assert sizes.shrink(quota, None).keys() >= {"expired", "evicted"}
    sizes.checkpoint()
    assert sizes.file_bytes() <= quota
