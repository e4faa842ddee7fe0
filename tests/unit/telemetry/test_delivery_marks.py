"""Marks are gathered, and who looks at the outbox or changes it sees the state of now."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.adapters.gateway_db import outbox, state
from teg.adapters.gateway_db.keeper import DatabaseKeeper
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.unproven import UnprovenTable
from teg.domain.errors import Unavailable
from teg.domain.telemetry.in_flight import DeliveryMarks
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.validation import Record, validate

TS = 1_767_225_600_000


class Site:
    """Three archived records, acknowledged and not marked yet."""

    def __init__(self, keeper: DatabaseKeeper) -> None:
        self.database = keeper.database
        self.unproven = UnprovenTable(keeper.database)
        self.records = RecordTable(keeper.database)
        self.marks = DeliveryMarks(self.records)
        self.maintenance = ArchiveMaintenance(keeper.database, self.marks.write)
        self.records.store([record(number) for number in (1, 2, 3)], [], None)
        self.ids = [row[0] for row in self.records.pending(Stream.DATA, 0, 10, 1 << 20)]
        self.marks.add([Delivery(Stream.DATA, self.ids, False)], 100)


def record(number: int) -> Record:
    found = validate(number, bytearray(b"data"), bytearray(b'{"ts":%d,"values":{"n":1}}' % (TS + number)))
    assert isinstance(found, Record)
    return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with closing(DatabaseKeeper(tmp_path / "gateway.db", lambda: 0.0)) as keeper:
        keeper.open_when_possible(outbox.SCHEMA, state.SCHEMA)
        yield Site(keeper)


def test_what_is_told_is_the_state_of_now(site: Site) -> None:
    counts = site.maintenance.counts()
    assert (counts["accepted"], counts["delivered"], counts["pending"]) == (3, 3, 0)


def test_what_was_acknowledged_can_be_sent_again_at_once(site: Site) -> None:
    assert site.maintenance.mark_for_publishing(TS, TS + 10) == 3
    assert [row[0] for row in site.records.pending(Stream.REPUBLISH, 0, 10, 1 << 20)] == site.ids
    assert not site.records.pending(Stream.DATA, 0, 10, 1 << 20)


def test_what_was_acknowledged_can_be_discarded_at_once(site: Site) -> None:
    site.unproven.keeps_watermarks(False)  # else it waits for the proof
    assert site.maintenance.discard(TS, TS + 10) == 3


def test_what_was_acknowledged_is_not_evicted_as_if_it_never_was_sent(site: Site) -> None:
    site.unproven.keeps_watermarks(False)
    gone = site.maintenance.shrink(1, None)
    counts = site.maintenance.counts()
    assert (gone, counts["evicted"], counts["delivered"]) == ({"expired": 3, "evicted": 0}, 0, 3)


def test_what_is_acknowledged_between_two_slices_is_not_evicted_either(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is made in slices, and publishing goes on in between."""
    site.unproven.keeps_watermarks(False)
    site.records.store([record(number) for number in range(4, 7)], [], None)
    late = [Delivery(Stream.DATA, [row[0] for row in site.records.pending(Stream.DATA, 3, 10, 1 << 20)], False)]
    write = site.marks.write

    def acknowledge_next() -> None:
        write()
        site.marks.add([late.pop()], 100) if late else None

    maintenance = ArchiveMaintenance(site.database, acknowledge_next)
    assert maintenance.shrink(1, None) == {"expired": 6, "evicted": 0}


def test_room_is_made_also_where_marks_cannot_be_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise Unavailable("database or disk is full")

    maintenance = ArchiveMaintenance(site.database, full)
    assert maintenance.shrink(1, None)["evicted"] == 3


def test_marks_that_cannot_be_written_are_kept_and_the_counts_still_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise Unavailable("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(site.records, "mark_published", full)
        assert site.maintenance.counts()["pending"] == 3
        with pytest.raises(Unavailable):
            site.maintenance.mark_for_publishing(TS, TS + 10)
        assert (site.marks.publishes, site.marks.marked_publishes, site.marks.marked_bytes) == (1, 0, 0)
    assert site.maintenance.counts()["pending"] == 0
    assert (site.marks.publishes, site.marks.marked_publishes, site.marks.marked_bytes) == (0, 1, 100)
