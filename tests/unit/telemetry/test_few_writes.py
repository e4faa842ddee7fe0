"""What a message costs the card: commits that fast messages share, removals in groups, pages a transaction writes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.adapters.gateway_db.outbox import TOGETHER, insert_records
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ingest import BATCH_ROWS, CommitPace, Recorder, RowsRead, joined
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.publisher import MARK_AFTER, MARK_QUIET_S
from teg.domain.telemetry.validation import Record
from tests.support.ingest import Site, never, texts
from tests.support.links import FakeClock, FakeLink, FakeOutbox
from tests.support.publishers import publisher
from tests.support.running import message


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


class Patient:
    """A recorder that leaves rows in the inbox for ten seconds of a driven clock."""

    def __init__(self, site: Site) -> None:
        self.now_s = 1000.0
        self.recorder = Recorder(
            site.inbox,
            site.table,
            lambda: None,
            idle_timeout_s=0.0,
            remove_after_s=10.0,
            now_s=lambda: self.now_s,
        )

    def pass_s(self, seconds: float) -> None:
        """As the running recorder does it: whenever it is woken, and when the next thing is due."""
        self.now_s += seconds
        while self.recorder.record_batch():
            pass


def simulated(per_s: float, seconds: float, pace: CommitPace) -> list[int]:
    """Rows a commit when one comes every 1 / `per_s` seconds."""
    now_s, commits, taken = 0.0, [], 0
    while now_s < seconds:
        waiting = int(now_s * per_s) - taken
        if not waiting:
            now_s += 1 / per_s
            continue
        taken += waiting
        commits.append(waiting)
        now_s += pace.pause_s(waiting, now_s)
    return commits


@pytest.mark.parametrize("per_s", [0.1, 1, 2, 3])
def test_a_slow_stream_waits_for_nothing(per_s: float) -> None:
    pace = CommitPace()
    assert [pace.pause_s(1, number / per_s) for number in range(50)] == [0.0] * 50


def test_ten_a_second_share_a_third_of_the_commits() -> None:
    commits = simulated(10, 60, CommitPace())
    assert len(commits) <= 0.35 * sum(commits) + 10


@given(st.lists(st.tuples(st.integers(1, BATCH_ROWS - 1), st.floats(0.0, 100.0)), min_size=1, max_size=50))
def test_no_row_waits_longer_than_the_bound(turns: list[tuple[int, float]]) -> None:
    pace, now_s = CommitPace(), 0.0
    for rows, passed_s in turns:
        now_s += passed_s
        assert 0.0 <= pace.pause_s(rows, now_s) <= CommitPace.LONGEST_S


def test_a_backlog_never_waits() -> None:
    pace = CommitPace(least_s=lambda: 60.0)
    assert pace.pause_s(BATCH_ROWS, 0.0) == 0.0
    assert pace.pause_s(1, 0.01) == 60.0


def test_archived_rows_leave_the_inbox_together(site: Site) -> None:
    patient = Patient(site)
    for number in range(9):
        site.controller.insert(message(number))
        patient.pass_s(1.0)
    assert site.archived() == texts(0, 8), "archived at once"
    assert site.controller.count() == 9
    patient.pass_s(1.6)
    assert site.controller.count() == 0


def test_rows_that_keep_coming_leave_after_ten_seconds(site: Site) -> None:
    patient = Patient(site)
    for number in range(11):
        site.controller.insert(message(number))
        patient.pass_s(1.0)
    assert site.controller.count() == 0
    assert site.archived() == texts(0, 10)


def test_many_rows_leave_at_once(site: Site) -> None:
    patient = Patient(site)
    site.controller.insert_many(texts(0, BATCH_ROWS - 1))
    patient.pass_s(0.0)
    assert site.controller.count() == 0


def test_a_life_that_ends_meanwhile_archives_nothing_twice(site: Site) -> None:
    patient = Patient(site)
    for number in range(5):
        site.controller.insert(message(number))
        patient.pass_s(0.1)
    assert site.controller.count() == 5
    site.recorder().run(never)
    assert site.archived() == texts(0, 4)
    assert (site.counter("accepted"), site.controller.count()) == (5, 0)


def test_a_stop_empties_the_inbox(site: Site) -> None:
    site.controller.insert(message(1))
    looks = iter([False, False, True])  # it meets the file, and archives
    Patient(site).recorder.run(lambda: next(looks, True))
    assert (site.archived(), site.controller.count()) == (texts(1, 1), 0)


def test_who_watches_the_inbox_sees_only_what_is_not_archived(site: Site) -> None:
    patient = Patient(site)
    site.controller.insert(message(1))
    assert patient.recorder.has_rows()
    patient.pass_s(0.1)
    assert (site.controller.count(), patient.recorder.has_rows()) == (1, False)
    site.controller.insert(message(2))
    assert patient.recorder.has_rows()


def test_a_new_inbox_with_lower_ids_is_seen(site: Site) -> None:
    patient = Patient(site)
    site.controller.insert_many(texts(1, 5))
    patient.pass_s(0.1)
    assert not patient.recorder.has_rows()
    site.controller.close()
    for suffix in ("", "-wal", "-shm"):
        (site.path / f"communication_queue.db{suffix}").unlink(missing_ok=True)
    site.controller = type(site.controller)(site.path / "communication_queue.db")
    site.controller.insert(message(9))
    assert patient.recorder.has_rows()
    patient.pass_s(0.1)
    assert site.archived() == texts(1, 5) + texts(9, 9)


def test_a_locked_inbox_keeps_nothing_from_being_archived(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = Patient(site)

    def locked(rows: RowsRead) -> None:
        raise Unavailable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(site.inbox, "delete", locked)
        for number in range(20):
            site.controller.insert(message(number))
            patient.now_s += 1.0
            patient.recorder.record_batch()
    assert (len(site.archived()), site.controller.count()) == (20, 20)
    patient.pass_s(10.0)
    assert site.controller.count() == 0


def test_batches_are_joined_in_order() -> None:
    one, two = RowsRead(3, [1, 2], [b"a", b"b"]), RowsRead(3, [4], [b"c"])
    assert joined([one, two]) == RowsRead(3, [1, 2, 4], [b"a", b"b", b"c"])
    assert joined([one]) is one


def frames(site: Site) -> int:
    assert site.database._files is not None
    return site.database._files.frames()


def test_a_message_costs_five_pages_and_its_mark_three(site: Site) -> None:
    """Counted in the write-ahead log; one page each for record, its ts, outbox, counter and last id."""
    patient = Patient(site)
    for number in range(3):
        site.controller.insert(message(number))
        patient.pass_s(0.1)
    before = frames(site)
    site.controller.insert(message(3))
    patient.pass_s(0.1)
    assert frames(site) - before <= 5
    before = frames(site)
    site.table.mark_published([Delivery(Stream.DATA, [1, 2, 3], False)])
    assert frames(site) - before <= 3


def test_a_proof_begins_with_what_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watermark covers what was marked before it: what is acknowledged only must not seem proven soon."""
    outbox, link = FakeOutbox(), FakeLink()
    outbox.add(Stream.DATA, range(1, 3))
    mine = publisher(outbox, link)
    counted: list[tuple[int, int]] = []
    mark = outbox.mark_published

    def marked(deliveries: Sequence[Delivery]) -> None:
        counted.append((mine.acknowledged_publishes, mine.acknowledged_bytes))
        mark(deliveries)

    monkeypatch.setattr(outbox, "mark_published", marked)
    mine.run(never)
    assert counted == [(0, 0)], "acknowledged, and not marked yet"
    assert mine.acknowledged_publishes == len(link.payloads)
    assert mine.acknowledged_bytes > 0


@pytest.mark.parametrize("rows", [1, TOGETHER - 1, TOGETHER, TOGETHER + 1, 3 * TOGETHER + 7])
def test_rows_inserted_together_are_those_inserted_one_by_one(site: Site, rows: int) -> None:
    records = [
        Record(
            number, 1000 + number, 1 + number % 5, f"text {number}", "right" if number % 3 else None, number % 7 == 0
        )
        for number in range(rows)
    ]
    with site.database.transaction() as connection:
        first = insert_records(connection, records, Stream.DATA)
    found = site.database.rows("SELECT id, source_row, ts, points, message, payload, kind FROM record ORDER BY id")
    assert found == [(first + at, *record) for at, record in enumerate(records)]
    waiting = site.database.rows("SELECT record_id FROM outbox WHERE lane = ? ORDER BY 1", (Stream.DATA,))
    assert [row_id for (row_id,) in waiting] == list(range(first, first + rows))


def test_a_backlog_needs_one_statement_for_many_rows(site: Site) -> None:
    """Counted by SQLite itself: statements, not time."""
    statements: list[str] = []
    records = [Record(number, 1000 + number, 1, "text", None, False) for number in range(5 * TOGETHER)]
    with site.database.transaction() as connection:
        connection.set_trace_callback(statements.append)
        insert_records(connection, records, Stream.DATA)
        connection.set_trace_callback(None)
    assert len(statements) <= 5 + 2, "five inserts, the next id, the outbox"


def test_rows_that_keep_coming_share_a_mark_of_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """At one a second, a mark for six of them; each costs the card three pages."""
    outbox, link, clock = FakeOutbox(), FakeLink(), FakeClock()
    mine = publisher(outbox, link, clock, idle_timeout_s=5.0)
    coming = iter(range(2, 61))

    def next_second(timeout_s: float) -> bool:
        clock.advance(min(1.0, timeout_s))
        if (row_id := next(coming, None)) is None:
            return False
        outbox.add(Stream.DATA, [row_id])
        return True

    monkeypatch.setattr(mine.signal, "notified", next_second)
    monkeypatch.setattr(mine.signal, "wait", next_second)
    outbox.add(Stream.DATA, [1])
    mine.run(never)
    assert [row_id for _, row_id in outbox.marked] == list(range(1, 61))
    assert outbox.marks <= 60 / MARK_AFTER + 1


def test_a_single_row_is_marked_when_no_more_come(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, link, clock = FakeOutbox(), FakeLink(), FakeClock()
    mine = publisher(outbox, link, clock, idle_timeout_s=5.0)
    waited: list[float] = []
    monkeypatch.setattr(mine.signal, "notified", lambda timeout_s: waited.append(timeout_s))
    outbox.add(Stream.DATA, [1])
    mine._marked_s = clock.monotonic_s()
    monkeypatch.setattr(mine.signal, "wait", lambda timeout_s: False)
    mine.run(never)
    assert (waited, outbox.left) == ([MARK_QUIET_S], 0)
