"""The archive and its outbox: ids, marks, dead letters, counters, retention."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.gateway_db import eviction
from teg.domain.telemetry.ports import Stream, fingerprint
from teg.domain.telemetry.retention import DAY_MS, Retention
from teg.domain.telemetry.validation import Record, SetAside
from tests.support.links import FakeClock, FakeDisk
from tests.support.outboxes import TS, Archive, record


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """With a server that gives no proofs; with one that does: test_unproven.py."""
    archive = Archive(tmp_path)
    archive.unproven.keeps_watermarks(False)
    yield archive
    archive.database.close()


def test_rows_are_pending_until_marked_and_stay_archived(archive: Archive) -> None:
    archive.store(1, 2, 3)
    assert archive.pending() == [1, 2, 3]
    archive.deliver(1, 2)
    assert archive.pending() == [3]
    assert archive.ids() == [1, 2, 3]
    archive.assert_account()


def test_what_is_published_is_the_correction_and_what_is_kept_the_original(archive: Archive) -> None:
    archive.table.store([Record(1, TS, 2, "original", "corrected", False)], [], None)
    assert archive.table.pending(Stream.DATA, 0, 10, 1000) == [(1, 2, 0, b"corrected")]
    assert archive.database.rows("SELECT message FROM record") == [("original",)]


def test_pending_is_cut_by_rows_and_bytes_but_never_to_nothing(archive: Archive) -> None:
    archive.store(*range(1, 11))
    size = len(record(1).message)
    assert len(archive.table.pending(Stream.DATA, 0, 4, 1 << 30)) == 4
    assert [row[0] for row in archive.table.pending(Stream.DATA, 4, 100, 3 * size)] == [5, 6, 7]
    assert len(archive.table.pending(Stream.DATA, 0, 100, 1)) == 1
    assert archive.table.pending(Stream.DATA, 10, 100, 1 << 30) == []


def test_delivered_logs_and_own_reports_are_not_kept(archive: Archive) -> None:
    archive.store(1)
    archive.store(2, 3, log=True)
    archive.store(4)
    archive.table.store_own([(TS, b'{"ts":1,"values":{"a":1}}')])
    archive.deliver(1, 2, transient=True)
    archive.deliver(5, lane=Stream.OWN, transient=True)
    assert archive.ids() == [1, 3, 4]
    assert archive.pending() == [3, 4]
    assert archive.counts()["own_pending"] == 0
    archive.assert_account()


def test_an_id_never_comes_back(archive: Archive) -> None:
    """A late acknowledgement for a row that is gone must not mark a new one."""
    archive.store(1, 2, 3, log=True)
    archive.deliver(1, 2, 3, transient=True)
    assert archive.ids() == []
    archive.store(4)
    assert archive.ids() == [4]
    archive.deliver(1, 2, 3, transient=True)
    assert archive.pending() == [4]


def test_marking_twice_counts_once(archive: Archive) -> None:
    archive.store(1, 2, 3)
    archive.deliver(1, 2)
    archive.deliver(1, 2, 3)
    assert archive.counts()["delivered"] == 3
    archive.assert_account()


def test_marks_touch_their_lane_only(archive: Archive) -> None:
    archive.store(1, 2, 3, 4)
    archive.deliver(1, 2)
    assert archive.maintenance.mark_for_publishing(TS + 1, TS + 4) == 2  # 3 and 4 are on their way anyway
    assert archive.pending(Stream.REPUBLISH) == [1, 2]
    archive.deliver(1, lane=Stream.REPUBLISH)
    assert (archive.pending(Stream.REPUBLISH), archive.pending()) == ([2], [3, 4])
    archive.deliver(3, 4)
    assert archive.pending(Stream.REPUBLISH) == [2]
    archive.assert_account()


def test_republished_rows_with_gaps_are_marked_exactly(archive: Archive) -> None:
    archive.store(*range(1, 6))
    archive.deliver(*range(1, 6))
    archive.maintenance.mark_for_publishing(TS + 1, TS + 1)
    archive.maintenance.mark_for_publishing(TS + 5, TS + 5)
    batch = archive.pending(Stream.REPUBLISH)
    archive.maintenance.mark_for_publishing(TS + 3, TS + 3)  # joins while 1 and 5 are on their way
    archive.deliver(*batch, lane=Stream.REPUBLISH)
    assert archive.pending(Stream.REPUBLISH) == [3]


def test_unfinished_rows_are_forgotten_once_they_left_the_inbox(archive: Archive) -> None:
    archive.store(11, 12)
    archive.table.store([record(13)], [SetAside(14, "", b"bad", "why")], left_upto=10)
    assert archive.table.unfinished().messages == {
        **{number: (fingerprint(record(number).message.encode()),) for number in (11, 12, 13)},
        14: (fingerprint(b"bad"),),
    }
    archive.store(15, left_upto=12)
    assert sorted(archive.table.unfinished().messages) == [13, 14, 15]
    archive.store(16)
    assert sorted(archive.table.unfinished().messages) == [16]


def test_unfinished_rows_of_used_ids_are_the_newest(archive: Archive) -> None:
    archive.store(1, 2)
    archive.table.store([Record(1, TS, 1, "another text", None, False)], [], None)
    assert archive.table.unfinished().messages == {1: (fingerprint(b"another text"),)}


def test_a_poisoned_record_becomes_a_dead_letter(archive: Archive) -> None:
    archive.store(1, 2, 3)
    archive.table.set_aside(Stream.DATA, 2, "the server closes on it")
    assert archive.ids() == [1, 3]
    assert archive.pending() == [1, 3]
    [letter] = archive.maintenance.dead_letters()
    assert (letter["inbox_row"], letter["reason"]) == (2, "the server closes on it")
    assert letter["message"] == record(2).message
    assert (archive.counts()["accepted"], archive.counts()["set_aside"]) == (2, 1)
    archive.assert_account()
    assert sorted(archive.table.unfinished().messages) == [1, 2, 3]


# --- retention


def fill(archive: Archive, first: int, rows: int, **options: Any) -> None:
    archive.store(*range(first, first + rows), size=1000, **options)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "SLICE", 20)
    monkeypatch.setattr(eviction, "LETTER_SLICE", 20)


def test_below_the_quota_nothing_goes(archive: Archive) -> None:
    fill(archive, 1, 100)
    archive.deliver(*range(1, 51))
    assert archive.maintenance.shrink(1 << 30, None) == {"expired": 0, "evicted": 0}
    assert len(archive.ids()) == 100


def test_old_delivered_records_expire_and_undelivered_ones_stay(archive: Archive) -> None:
    fill(archive, 1, 100)
    archive.deliver(*range(1, 51))
    assert archive.maintenance.shrink(1 << 30, TS + 80)["expired"] == 50
    assert archive.ids() == list(range(51, 101))
    archive.assert_account()


def test_over_the_quota_delivered_records_go_first_oldest_first(archive: Archive) -> None:
    fill(archive, 1, 400)
    archive.deliver(*range(1, 201))
    quota = archive.database.size_bytes() * 3 // 4
    gone = archive.maintenance.shrink(quota, None)
    assert gone["evicted"] == 0
    assert archive.ids() == list(range(gone["expired"] + 1, 401))
    assert archive.database.size_bytes() <= quota
    assert archive.pending() == list(range(201, 401))
    archive.assert_account()


def test_undelivered_measurements_go_last_oldest_first_and_are_counted(archive: Archive) -> None:
    fill(archive, 1, 400)
    archive.deliver(*range(1, 101))
    archive.maintenance.mark_for_publishing(TS + 1, TS + 50)
    archive.table.store_own([(TS, b"x" * 1000) for _ in range(30)])
    quota = archive.database.size_bytes() // 2
    gone = archive.maintenance.shrink(quota, None)
    assert (gone["expired"], gone["republish_cancelled"], gone["own_evicted"]) == (100, 50, 30)
    assert 0 < gone["evicted"] < 300
    assert archive.pending() == archive.ids() == list(range(101 + gone["evicted"], 401))
    assert archive.counts()["evicted"] == gone["evicted"]
    archive.assert_account()


@pytest.mark.parametrize("delivered", [False, True])
def test_nonsense_from_the_controller_never_pushes_measurements_out(archive: Archive, delivered: bool) -> None:
    fill(archive, 1, 100)
    if delivered:
        archive.deliver(*range(1, 101))
    nonsense = [SetAside(number, "", b"x" * 1000, "no JSON") for number in range(1000, 2000)]
    archive.table.store([], nonsense, None)
    archive.maintenance.shrink(300_000, None)
    assert archive.ids() == list(range(1, 101))
    letters = archive.counts()["dead_letters"]
    assert 0 < letters < 1000
    assert archive.maintenance.dead_letters(1)[0]["inbox_row"] == 1999  # the newest are kept


def test_an_eviction_while_a_publish_is_on_its_way_is_counted_once(archive: Archive) -> None:
    fill(archive, 1, 200)
    on_its_way = archive.pending()[:50]
    archive.maintenance.shrink(archive.database.size_bytes() // 2, None)
    archive.deliver(*on_its_way)
    archive.assert_account()


def test_a_quota_that_nothing_can_meet_ends(archive: Archive) -> None:
    fill(archive, 1, 50)
    assert archive.maintenance.shrink(1, None)["evicted"] == 50
    assert archive.ids() == []
    archive.assert_account()


def test_housekeeping_says_loudly_what_went_undelivered(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    fill(archive, 1, 100)
    archive.deliver(*range(1, 51))
    Retention(archive.maintenance, FakeDisk(), clock, 1 << 30, 1).run()
    assert len(archive.ids()) == 100
    clock.ms = TS + DAY_MS + 40
    Retention(archive.maintenance, FakeDisk(), clock, 1 << 30, 1).run()
    assert len(archive.ids()) == 61
    assert caplog.text == ""
    Retention(archive.maintenance, FakeDisk(), clock, 60_000, None).run()
    assert "records went" in caplog.text
