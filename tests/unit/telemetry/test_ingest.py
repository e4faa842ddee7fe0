"""Recording: a real inbox file, a real archive, and a crash at every step between them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teg.domain.errors import Unavailable
from teg.domain.telemetry import ingest
from teg.domain.telemetry.ingest import BATCH_ROWS, RowsRead
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.validation import Record, SetAside
from tests.support.ingest import Crash, Site, after_store, crash_at, never, recreate, texts
from tests.support.running import message


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def test_rows_move_in_order_and_leave_the_inbox(site: Site) -> None:
    rows = 2 * BATCH_ROWS + 500
    site.controller.insert_many(texts(1, rows))
    site.recorder().run(never)
    assert site.archived() == texts(1, rows)
    assert site.controller.count() == 0
    assert site.counter("accepted") == rows
    assert site.notifications == 3  # one a batch
    assert [row[0] for row in site.table.pending(Stream.DATA, 0, 9999, 1 << 30)] == list(range(1, rows + 1))


def test_bad_rows_in_the_middle_are_set_aside_and_counted(site: Site) -> None:
    bad: list[Any] = ["nothing", None, b"\x00\xff", 7, '{"ts": 1, "values": {"a": 1}}', "[" * 5000, "x" * 200_000]
    for number, text in enumerate(bad):
        site.controller.insert(message(number))
        site.controller.insert(text, row_type=None)
    site.recorder().run(never)
    assert site.archived() == texts(0, len(bad) - 1)
    assert len(site.dead()) == len(bad)
    assert all(reason for _, reason in site.dead())
    assert site.controller.count() == 0
    assert (site.counter("accepted"), site.counter("set_aside")) == (len(bad), len(bad))


def test_logs_are_kept_only_until_delivered(site: Site) -> None:
    for row_type in ("log", "log_warning", "catalog", "measurement"):
        site.controller.insert(message(1), row_type)
    site.recorder().run(never)
    assert site.database.rows("SELECT kind FROM record ORDER BY id") == [(1,), (1,), (0,), (0,)]


def test_a_value_that_would_fill_the_memory_is_met_by_its_beginning(site: Site) -> None:
    site.controller.insert(message(1))
    site.controller.insert("x" * 5_000_000)
    site.controller.insert(b"y" * 3_000_000)
    site.controller.insert(message(2), row_type="t" * 3_000_000)
    site.controller.insert(message(3))
    site.recorder().run(never)
    assert site.archived() == texts(1, 3)
    assert [(len(text), reason) for text, reason in site.dead()] == [
        (65_536, "message of 5000000 bytes is over the limit; only its beginning is kept"),
        (65_536, "message of 3000000 bytes is over the limit; only its beginning is kept"),
    ]
    assert site.controller.count() == 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["store", "delete"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_crash_at_any_step_neither_loses_nor_doubles(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, after: bool, call: int
) -> None:
    middle, last = BATCH_ROWS + 500, 2 * BATCH_ROWS + 600
    site.controller.insert_many([*texts(1, middle), "bad", *texts(middle + 1, last)])
    with monkeypatch.context() as patch:
        recorder = site.recorder()
        crash_at(patch, site.table if step == "store" else site.inbox, step, after=after, call=call)
        with pytest.raises(Crash):
            recorder.run(never)
    site.controller.insert_many(texts(last + 1, last + 100))
    site.recorder().run(never)
    assert site.archived() == texts(1, last + 100)
    assert len(site.dead()) == 1
    assert (site.counter("accepted"), site.counter("set_aside")) == (last + 100, 1)
    assert site.controller.count() == 0


def test_a_crash_in_the_middle_of_deleting_is_made_up_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.controller.insert_many(texts(1, 1000))
    with monkeypatch.context() as patch:
        recorder = site.recorder()
        crash_at(patch, site.inbox._file, "ask", after=True, call=4)  # met, read, two chunks deleted
        with pytest.raises(Crash):
            recorder.run(never)
    assert 0 < site.controller.count() < 1000
    site.recorder().run(never)
    assert site.archived() == texts(1, 1000)
    assert site.controller.count() == 0


def test_an_inbox_created_anew_while_we_were_dead_loses_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.controller.insert_many(texts(1, 10))
    after_store(site, monkeypatch)
    recreate(site)
    site.controller.insert_many(texts(101, 110))  # the same ids, other rows
    site.recorder().run(never)
    assert site.archived() == texts(1, 10) + texts(101, 110)


def test_ids_used_again_by_a_table_without_autoincrement(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    recreate(site, autoincrement=False)
    recorder = site.recorder()
    for first in (1, 101, 201):
        site.controller.insert_many(texts(first, first + 9))
        recorder.run(never)
    site.controller.insert_many(texts(301, 305))
    after_store(site, monkeypatch)
    site.recorder().run(never)
    assert site.archived() == texts(1, 10) + texts(101, 110) + texts(201, 210) + texts(301, 305)
    assert site.controller.count() == 0


def test_an_inbox_replaced_between_archiving_and_deleting_keeps_its_new_rows(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old ids must not be deleted from the new file."""
    recorder = site.recorder()
    site.controller.insert_many(texts(1, 10))
    original = site.table.store

    def store(rows: Sequence[Record], aside: Sequence[SetAside], left_upto: int | None) -> None:
        original(rows, aside, left_upto)
        if rows and rows[0].message == message(1):
            recreate(site)
            site.controller.insert_many(texts(101, 120))

    monkeypatch.setattr(site.table, "store", store)
    recorder.run(never)
    assert site.archived() == texts(1, 10) + texts(101, 120)
    assert site.controller.count() == 0


def test_a_deleted_inbox_takes_its_rows_along_and_work_goes_on(site: Site) -> None:
    recorder = site.recorder()
    site.controller.insert_many(texts(1, 5))
    recorder.run(never)
    recreate(site)
    recorder.run(never)
    site.controller.insert_many(texts(6, 9))
    recorder.run(never)
    assert site.archived() == texts(1, 9)


def test_a_locked_inbox_stops_only_the_deleting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "LOCKED_PAUSE_S", 0.01)
    recorder = site.recorder()
    refusals = 5
    original = site.inbox.delete

    def locked(rows: RowsRead) -> None:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            site.controller.insert(message(100 + refusals))
            raise Unavailable("database is locked")
        original(rows)

    monkeypatch.setattr(site.inbox, "delete", locked)
    site.controller.insert_many(texts(1, 10))
    recorder.run(never)
    assert sorted(site.archived()) == sorted(texts(1, 10) + texts(100, 104))
    assert site.controller.count() == 0


def test_memory_is_bounded_while_the_inbox_stays_locked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "MAX_ARCHIVED_ROWS", 1500)
    recorder = site.recorder()

    def locked(rows: RowsRead) -> None:
        raise Unavailable("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(site.inbox, "delete", locked)
        site.controller.insert_many(texts(1, 5000))
        for _ in range(10):
            recorder.record_batch()
    assert len(site.archived()) == 2000
    recorder.run(never)
    assert site.archived() == texts(1, 5000)


def test_an_archive_that_cannot_be_written_leaves_the_inbox_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.controller.insert_many(texts(1, 10))
    recorder = site.recorder()

    def full(*_: Any, **__: Any) -> None:
        raise Unavailable("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(site.table, "store", full)
        with pytest.raises(Unavailable, match="full"):
            recorder.run(never)
    assert site.controller.count() == 10
    recorder.run(never)
    assert site.archived() == texts(1, 10)


@pytest.mark.parametrize("again", ["another file", "the same file"])
def test_an_inbox_created_anew_while_a_delete_waits_for_its_lock_loses_nothing(site: Site, again: str) -> None:
    """The old ids, pending since the lock, must not be deleted from what is in there now: 3 of 4 rows were lost so."""
    recorder = site.recorder()
    site.controller.insert_many(texts(1, 4))
    site.controller.connection.execute("BEGIN IMMEDIATE")
    recorder.record_batch()  # meets the file
    assert recorder.record_batch() == 4
    assert site.controller.connection.execute("SELECT count(*) FROM messages").fetchone() == (4,)
    site.controller.connection.execute("COMMIT")
    if again == "another file":
        recreate(site)
    else:
        site.controller.connection.executescript(
            "DROP TABLE messages; CREATE TABLE messages (id INTEGER PRIMARY KEY, type text, message text)"
        )
    site.controller.insert_many(texts(101, 104))
    recorder.run(never)
    assert site.archived() == texts(1, 4) + texts(101, 104)
    assert site.controller.count() == 0


def test_an_inbox_that_is_gone_while_a_delete_waits_is_not_looked_for_without_end(site: Site) -> None:
    recorder = site.recorder()
    site.controller.insert_many(texts(1, 4))
    site.controller.connection.execute("BEGIN IMMEDIATE")
    recorder.record_batch()
    assert recorder.record_batch() == 4
    site.controller.close()
    for path in site.path.glob("communication_queue.db*"):
        path.unlink()
    recorder.run(never)  # ends
    assert site.archived() == texts(1, 4)


def test_rows_that_cannot_be_removed_for_long_are_said_once_and_so_is_the_end(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read_only(rows: RowsRead) -> None:
        raise Unavailable("attempt to write a readonly database")

    recorder = site.recorder()
    site.controller.insert_many(texts(1, 4))
    with monkeypatch.context() as patch:
        patch.setattr(site.inbox, "delete", read_only)
        for _ in range(3 * ingest.TRIES_UNSAID):
            recorder.record_batch()
    recorder.run(never)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "archived rows cannot be removed from the inbox: attempt to write a readonly database",
        "archived rows are removed from the inbox again",
    ]


def test_a_second_run_notifications_the_first_instead_of_working_beside_it(site: Site) -> None:
    recorder = site.recorder()
    site.controller.insert(message(1))
    with recorder.signal.draining():
        recorder.run(never)
    assert site.archived() == []


@given(
    st.lists(st.sampled_from(["insert", "run", "crash", "recreate", "bad", "restart"]), min_size=1, max_size=12),
    st.booleans(),
)
@settings(max_examples=40)
def test_whatever_happens_each_row_is_archived_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], autoincrement: bool
) -> None:
    site = Site(tmp_path_factory.mktemp("site"))
    patch = pytest.MonkeyPatch()
    if not autoincrement:
        recreate(site, autoincrement)
    recorder, number, expected, bad = site.recorder(), 0, [], 0
    for step in steps:
        if step == "insert":
            site.controller.insert_many(texts(number + 1, number + 7))
            expected += texts(number + 1, number + 7)
            number += 7
        elif step == "bad":
            site.controller.insert(f"bad {(bad := bad + 1)}")
        elif step == "crash" and site.controller.count():
            after_store(site, patch)
            recorder = site.recorder()
        elif step == "restart":
            recorder = site.recorder()
        elif step == "recreate":
            recorder.run(never)  # what the controller deletes unread is the controller's own
            recreate(site, autoincrement)
        else:
            recorder.run(never)
    recorder.run(never)
    try:
        assert site.archived() == expected
        assert len(site.dead()) == bad
        assert site.controller.count() == 0
    finally:
        site.close()


def test_rows_of_an_earlier_life_go_only_from_an_archive_that_is_confirmed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive says that it has them; its file may have been taken away since it was opened."""
    site.controller.insert_many(texts(1, 5))
    after_store(site, monkeypatch)

    def taken_away(_: object) -> None:
        raise Unavailable("the archive's file was taken away")

    with monkeypatch.context() as patch:
        patch.setattr(type(site.table), "confirm", taken_away)
        with pytest.raises(Unavailable):
            site.recorder().run(never)
    assert site.controller.count() == 5
