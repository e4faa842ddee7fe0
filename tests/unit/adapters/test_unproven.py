"""Acknowledged is not stored: what stays, what is proven, and what goes again after a connection ended."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teg.domain.telemetry.ports import Stream
from tests.support.outboxes import TS, Archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """With a server that is known to give watermarks back."""
    archive = Archive(tmp_path)
    archive.unproven.keeps_watermarks(True)
    yield archive
    archive.database.close()


def states(archive: Archive) -> tuple[int, int, int]:
    counts = archive.counts()
    return counts["stored"], counts["acknowledged"], counts["pending"]


def test_acknowledged_becomes_stored_with_the_second_watermark_after_it(archive: Archive) -> None:
    archive.store(*range(1, 11))
    archive.deliver(*range(1, 6))
    assert states(archive) == (0, 5, 5)
    first = archive.unproven.next_watermark()
    archive.deliver(6, 7)
    archive.unproven.next_watermark()
    assert archive.unproven.prove(first.number) == 5
    assert states(archive) == (5, 2, 3)
    assert archive.counts()["delivered"] == 7
    archive.assert_account()


def test_what_is_unproven_when_a_connection_ends_goes_again(archive: Archive) -> None:
    archive.store(*range(1, 11))
    archive.deliver(1, 2, 3)
    archive.unproven.prove(archive.unproven.next_watermark().number)
    archive.deliver(4, 5, 6, 9)
    assert archive.table.connection_ended() == 4
    assert archive.pending() == [4, 5, 6, 7, 8, 9, 10]
    assert states(archive) == (3, 0, 7)
    assert archive.table.connection_ended() == 0
    archive.assert_account()


def test_it_outlives_the_process(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.unproven.keeps_watermarks(True)
    archive.store(1, 2)
    archive.deliver(1, 2)
    archive.database.close()
    again = Archive(tmp_path)
    assert again.table.connection_ended() == 2
    assert again.pending() == [1, 2]
    again.database.close()


def test_a_proof_of_the_last_connection_proves_nothing_of_it_in_the_next(archive: Archive) -> None:
    archive.store(1, 2)
    archive.deliver(1)
    watermark = archive.unproven.next_watermark()
    archive.table.connection_ended()
    assert archive.unproven.prove(watermark.number) == 0
    assert archive.pending() == [1, 2]


def test_before_the_servers_habit_is_known_nothing_goes_again_and_nothing_is_forgotten(tmp_path: Path) -> None:
    for keeps, sent_again in ((True, 2), (False, 0)):
        archive = Archive(tmp_path / str(keeps))
        archive.store(1, 2, 3)
        archive.deliver(1, 2)
        assert archive.table.connection_ended() == 0
        assert archive.pending() == [3]
        assert archive.unproven.unproven()
        assert archive.unproven.keeps_watermarks(keeps) == sent_again
        assert len(archive.pending()) == 1 + sent_again
        archive.assert_account()
        archive.database.close()


def test_a_server_without_proofs_costs_no_table(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.unproven.keeps_watermarks(False)
    archive.store(1, 2)
    archive.deliver(1, 2)
    assert not archive.unproven.unproven()
    assert archive.table.connection_ended() == 0
    archive.database.close()


def test_what_is_not_kept_stays_until_it_is_proven(archive: Archive) -> None:
    archive.store(1, 2, log=True)
    archive.table.store_own([(TS, b'{"ts":1,"values":{"severity":"INFO"}}')])
    archive.deliver(1, 2, transient=True)
    archive.deliver(3, lane=Stream.OWN, transient=True)
    assert archive.ids() == [1, 2, 3]
    archive.table.connection_ended()
    assert (archive.pending(), archive.pending(Stream.OWN)) == ([1, 2], [3])
    archive.deliver(1, 2, transient=True)
    archive.deliver(3, lane=Stream.OWN, transient=True)
    archive.unproven.prove(archive.unproven.next_watermark().number)
    assert archive.ids() == []
    assert states(archive) == (2, 0, 0)


def test_a_log_that_waits_in_another_stream_too_is_not_deleted_by_a_proof(archive: Archive) -> None:
    archive.store(1, log=True)
    archive.deliver(1, transient=True)
    archive.table.connection_ended()
    archive.unproven.prove(archive.unproven.next_watermark().number)
    assert archive.ids() == [1]


def test_unproven_rows_are_the_last_to_be_evicted(archive: Archive) -> None:
    archive.store(*range(1, 61), size=1000)
    archive.deliver(*range(1, 21))
    archive.unproven.prove(archive.unproven.next_watermark().number)
    archive.deliver(*range(21, 41))
    archive.maintenance.shrink(archive.database.size_bytes() - 10_000, None)
    assert archive.ids() == list(range(21, 61))
    archive.maintenance.shrink(0, TS + 1000)
    assert archive.ids() == []
    assert archive.counts()["evicted"] == 40
    archive.assert_account()


def test_republished_rows_are_proven_too_and_no_quota_hangs_on_them(archive: Archive) -> None:
    archive.store(*range(1, 10), size=1000)
    archive.deliver(*range(1, 10))
    archive.unproven.prove(archive.unproven.next_watermark().number)
    archive.maintenance.mark_for_publishing(TS, TS + 100)
    archive.deliver(2, 4, 6, lane=Stream.REPUBLISH)
    archive.table.connection_ended()
    assert archive.pending(Stream.REPUBLISH) == list(range(1, 10))
    archive.deliver(2, 4, 6, lane=Stream.REPUBLISH)
    archive.maintenance.shrink(0, None)
    assert archive.ids() == []
    archive.assert_account()


def test_one_record_a_second_takes_one_row_of_the_table(archive: Archive) -> None:
    for number in range(1, 200):
        archive.store(number)
        archive.deliver(number)
    assert archive.database.rows("SELECT first_id, last_id FROM unproven") == [(1, 199)]


def test_the_range_a_server_that_was_set_back_may_miss(archive: Archive) -> None:
    marks = []
    for first in (1, 11, 21):
        archive.store(*range(first, first + 10))
        archive.deliver(*range(first, first + 10))
        marks.append(archive.unproven.next_watermark().number)
        archive.unproven.prove(marks[-1])
    since_second = archive.unproven.missing_since(marks[1])
    assert since_second is not None
    assert (since_second.first_ms, since_second.last_ms, since_second.rows) == (TS + 11, TS + 30, 20)
    everything = archive.unproven.missing_since(None)
    assert everything is not None
    assert everything.rows == 30
    assert archive.unproven.state().missing == everything
    archive.maintenance.mark_for_publishing(TS + 20, TS + 30)
    assert archive.unproven.state().missing == everything
    archive.maintenance.mark_for_publishing(everything.first_ms, everything.last_ms)
    assert archive.unproven.state().missing is None


def test_marks_of_delivery_and_their_proofs_are_not_fsynced(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.store(1)
    durable: list[bool] = []
    transaction = archive.database.transaction

    def noted(durable_one: bool = True) -> object:
        durable.append(durable_one)
        return transaction(durable_one)

    monkeypatch.setattr(archive.database, "transaction", lambda durable=True: noted(durable))
    archive.deliver(1)
    archive.unproven.prove(archive.unproven.next_watermark().number)
    assert durable == [False, False, False]


def test_two_archives_never_write_the_same_watermark(tmp_path: Path) -> None:
    texts = set()
    for number in range(20):
        archive = Archive(tmp_path / str(number))
        texts.add(archive.unproven.next_watermark().text)
        archive.database.close()
    copied = [Archive(tmp_path / "0") for _ in range(2)]
    for copy in copied:  # a card that was imaged: the same file twice, back to the same number
        copy.database.rows("UPDATE proof SET next_mark = 1")
        texts.add(copy.unproven.next_watermark().text)
        copy.database.close()
    assert len(texts) == 22


class Life:
    """What may happen to an archive, by name; the account must hold after each."""

    def __init__(self, path: Path) -> None:
        self.archive = Archive(path)
        self.stored = self.watermark = 0

    def store(self, size: int, log: bool = False) -> None:
        self.archive.store(*range(self.stored + 1, self.stored + 2 + size), log=log)
        self.stored += size + 1

    def log(self, size: int) -> None:
        self.store(size, log=True)

    def mark(self, size: int) -> None:
        if pending := self.archive.pending():
            self.archive.deliver(*pending[: size + 1], transient=True)

    def mark_every_second(self, size: int) -> None:
        if pending := self.archive.pending():
            self.archive.deliver(*pending[: 2 * size + 1 : 2], transient=True)

    def poison(self, size: int) -> None:
        if pending := self.archive.pending():
            self.archive.table.set_aside(Stream.DATA, pending[size % len(pending)], "poison")

    def evict(self, size: int) -> None:
        self.archive.maintenance.shrink(self.archive.database.size_bytes() - 1024 * size, None)

    def again(self, _: int) -> None:
        self.archive.maintenance.mark_for_publishing(TS, TS + self.stored)

    def next_watermark(self, _: int) -> None:
        self.watermark = self.archive.unproven.next_watermark().number

    def prove(self, _: int) -> None:
        self.archive.unproven.prove(self.watermark)

    def ended(self, _: int) -> None:
        self.archive.table.connection_ended()

    def keeps(self, size: int) -> None:
        self.archive.unproven.keeps_watermarks(size > 2)


STEPS = sorted(name for name, member in vars(Life).items() if not name.startswith("_") and callable(member))


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=40))
@settings(max_examples=60)
def test_the_account_is_exact_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    life = Life(tmp_path_factory.mktemp("archive"))
    for step, size in steps:
        getattr(life, step)(size)
        life.archive.assert_account()
    life.archive.database.close()
