"""The promise of `telemetry.ports.OwnRecords`, kept by the outbox and by what reports are tested with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import orjson
import pytest

from teg.domain.telemetry.ports import OwnRecords, Stream
from tests.support.outboxes import TS, Archive
from tests.support.own_reports import FakeOwn


class Harness(Protocol):
    own: OwnRecords

    def kept(self) -> list[tuple[int, dict[str, object]]]:
        """(ts_ms, values) of what waits, in its order."""


class InTables:
    def __init__(self, directory: Path) -> None:
        self._archive = Archive(directory)
        self.own: OwnRecords = self._archive.table
        self.close = self._archive.database.close

    def kept(self) -> list[tuple[int, dict[str, object]]]:
        rows = self._archive.database.rows(
            "SELECT CAST(message AS TEXT) FROM record JOIN outbox ON record.id = record_id WHERE lane = ? ORDER BY id",
            (Stream.OWN,),
        )
        return [(record["ts"], record["values"]) for record in (orjson.loads(text) for (text,) in rows)]


class InMemory:
    def __init__(self) -> None:
        self._fake = FakeOwn()
        self.own: OwnRecords = self._fake

    def kept(self) -> list[tuple[int, dict[str, object]]]:
        return list(self._fake.records)


@pytest.fixture(params=["tables", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    if request.param == "memory":
        yield InMemory()
        return
    tables = InTables(tmp_path)
    yield tables
    tables.close()


def record(ts_ms: int, number: int) -> tuple[int, bytes]:
    return ts_ms, b'{"ts":%d,"values":{"n":%d}}' % (ts_ms, number)


def test_records_wait_in_the_order_they_came_whatever_their_time(place: Harness) -> None:
    place.own.store_own([record(TS + 5, 1), record(TS, 2)])
    place.own.store_own([record(TS + 5, 3)])
    assert place.kept() == [(TS + 5, {"n": 1}), (TS, {"n": 2}), (TS + 5, {"n": 3})]


def test_the_same_record_twice_waits_twice(place: Harness) -> None:
    place.own.store_own([record(TS, 1), record(TS, 1)])
    assert place.kept() == [(TS, {"n": 1})] * 2


def test_nothing_stored_is_nothing(place: Harness) -> None:
    place.own.store_own([])
    assert place.kept() == []
