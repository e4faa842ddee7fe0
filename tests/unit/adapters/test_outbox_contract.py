"""The promise of `telemetry.ports.Outbox`, kept by the tables of `gateway.db` and by what publishing is tested with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teg.adapters.gateway_db.database import Database
from teg.domain.telemetry.ports import Delivery, Outbox, Stream
from tests.support.links import FakeOutbox
from tests.support.outboxes import TS, Archive

ALL = 1_000_000


class Harness(Protocol):
    """Puts rows on their way; ids grow from 1, a row carries its number."""

    outbox: Outbox

    def store(self, count: int) -> None:
        """So many rows of data."""

    def republish(self, first: int, last: int) -> None:
        """Rows of data again, which were delivered or are still waiting."""


class InTables:
    def __init__(self, directory: Path) -> None:
        self._archive = Archive(directory)
        self.outbox: Outbox = self._archive.table
        self._stored = 0

    def store(self, count: int) -> None:
        self._archive.store(*range(self._stored + 1, self._stored + count + 1))
        self._stored += count

    def republish(self, first: int, last: int) -> None:
        self._archive.maintenance.mark_for_publishing(TS + first, TS + last)


class InMemory:
    def __init__(self) -> None:
        self._fake = FakeOutbox()
        self.outbox: Outbox = self._fake
        self._stored = 0

    def store(self, count: int) -> None:
        self._fake.add(Stream.DATA, range(self._stored + 1, self._stored + count + 1))
        self._stored += count

    def republish(self, first: int, last: int) -> None:
        waiting = self._fake.rows[Stream.DATA]
        self._fake.add(Stream.REPUBLISH, [row_id for row_id in range(first, last + 1) if row_id not in waiting])


@pytest.fixture(autouse=True)
def closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: list[Database] = []
    opening = Database.open

    def noted(database: Database, schema: tuple[str, ...]) -> None:
        opened.append(database)
        opening(database, schema)

    monkeypatch.setattr(Database, "open", noted)
    yield
    for database in opened:
        database.close()


@pytest.fixture(params=["tables", "memory"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    return InTables(tmp_path) if request.param == "tables" else InMemory()


def waiting(harness: Harness, lane: Stream = Stream.DATA) -> list[int]:
    return [row[0] for row in harness.outbox.pending(lane, 0, ALL, ALL)]


def deliver(harness: Harness, *ids: int, lane: Stream = Stream.DATA) -> None:
    harness.outbox.mark_published([Delivery(lane, list(ids), transient=False)])


def test_nothing_waits_at_first(harness: Harness) -> None:
    assert all(harness.outbox.pending(lane, 0, ALL, ALL) == [] for lane in Stream)
    assert all(harness.outbox.newest(lane) == 0 for lane in Stream)
    assert harness.outbox.connection_ended() == 0


def test_rows_come_oldest_first_with_their_points_and_their_text(harness: Harness) -> None:
    harness.store(3)
    rows = harness.outbox.pending(Stream.DATA, 0, ALL, ALL)
    assert [(row_id, points) for row_id, points, _, _ in rows] == [(1, 1), (2, 1), (3, 1)]
    assert all(f'"n":{row_id}'.encode() in text.replace(b" ", b"") for row_id, _, _, text in rows)


def test_reading_goes_on_after_an_id_and_takes_nothing_away(harness: Harness) -> None:
    harness.store(5)
    assert [row[0] for row in harness.outbox.pending(Stream.DATA, 2, ALL, ALL)] == [3, 4, 5]
    assert harness.outbox.pending(Stream.DATA, 5, ALL, ALL) == []
    assert waiting(harness) == [1, 2, 3, 4, 5]


def test_a_read_is_bounded_by_rows_and_by_bytes_and_gives_at_least_one_row(harness: Harness) -> None:
    harness.store(5)
    size = len(harness.outbox.pending(Stream.DATA, 0, 1, ALL)[0][3])
    assert [row[0] for row in harness.outbox.pending(Stream.DATA, 0, 2, ALL)] == [1, 2]
    assert [row[0] for row in harness.outbox.pending(Stream.DATA, 0, ALL, 1)] == [1]
    assert [row[0] for row in harness.outbox.pending(Stream.DATA, 0, ALL, 2 * size)] == [1, 2]


def test_exactly_the_delivered_rows_leave(harness: Harness) -> None:
    """A publish may carry rows with holes between them; what lies in the holes was not sent."""
    harness.store(7)
    deliver(harness, 1, 3, 4, 7)
    assert waiting(harness) == [2, 5, 6]
    assert harness.outbox.newest(Stream.DATA) == 6
    deliver(harness, 5)
    assert waiting(harness) == [2, 6]


def test_several_publishes_are_marked_at_once(harness: Harness) -> None:
    harness.store(6)
    harness.outbox.mark_published([Delivery(Stream.DATA, [5, 6], False), Delivery(Stream.DATA, [1, 3], False)])
    assert waiting(harness) == [2, 4]


def test_streams_do_not_touch_each_other(harness: Harness) -> None:
    harness.store(4)
    deliver(harness, 1, 2)
    harness.republish(1, 2)
    assert (waiting(harness), waiting(harness, Stream.REPUBLISH)) == ([3, 4], [1, 2])
    deliver(harness, 1, lane=Stream.REPUBLISH)
    assert (waiting(harness), waiting(harness, Stream.REPUBLISH)) == ([3, 4], [2])
    assert (harness.outbox.newest(Stream.DATA), harness.outbox.newest(Stream.REPUBLISH)) == (4, 2)


def test_what_is_set_aside_waits_nowhere_any_more(harness: Harness) -> None:
    harness.store(3)
    harness.outbox.set_aside(Stream.DATA, 2, "refused")
    assert waiting(harness) == [1, 3]
    deliver(harness, 1)
    harness.republish(1, 1)
    harness.outbox.set_aside(Stream.REPUBLISH, 1, "refused")
    assert (waiting(harness), waiting(harness, Stream.REPUBLISH)) == ([3], [])


@pytest.mark.parametrize("kind", ["tables", "memory"])
def test_any_marks_take_exactly_what_they_name(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.sets(st.integers(1, 30), min_size=1), st.sets(st.integers(1, 30)))
    def take(first: set[int], second: set[int]) -> None:
        harness: Harness = InTables(tmp_path_factory.mktemp("outbox")) if kind == "tables" else InMemory()
        harness.store(30)
        deliver(harness, *sorted(first))
        if second - first:
            deliver(harness, *sorted(second - first))
        assert waiting(harness) == sorted(set(range(1, 31)) - first - second)

    take()
