"""The promise of `telemetry.reporting.PendingAttributes`, kept by the table and by what reports are tested with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.gateway_db import state
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.state import ClientAttributeTable
from teg.domain.telemetry.reporting import PendingAttributes
from tests.support.own_reports import FakeAttributes


@pytest.fixture(params=["table", "memory"])
def attributes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PendingAttributes]:
    if request.param == "memory":
        yield FakeAttributes()
        return
    database = Database(tmp_path / "gateway.db")
    database.open(state.SCHEMA)
    yield ClientAttributeTable(database)
    database.close()


def test_what_is_set_waits_by_key_with_the_number_of_its_change(attributes: PendingAttributes) -> None:
    attributes.set({"b": b"1", "a": b'"x"'})
    attributes.set({"b": b"2"})
    assert attributes.pending() == [("a", b'"x"', 1), ("b", b"2", 2)]
    assert attributes.told() == []


def test_only_the_change_that_was_sent_is_marked(attributes: PendingAttributes) -> None:
    attributes.set({"a": b"1", "b": b"1"})
    attributes.set({"a": b"2"})
    attributes.mark([("a", 1), ("b", 1), ("gone", 1)])
    assert attributes.pending() == [("a", b"2", 2)]
    assert attributes.told() == [("b", b"1")]
    attributes.mark([("a", 2)])
    assert attributes.pending() == []
    assert attributes.told() == [("a", b"2"), ("b", b"1")]


def test_the_same_value_set_again_waits_again(attributes: PendingAttributes) -> None:
    attributes.set({"a": b"1"})
    attributes.mark([("a", 1)])
    attributes.set({"a": b"1"})
    assert attributes.pending() == [("a", b"1", 2)]


@pytest.mark.parametrize(("keys", "again"), [(None, ["a", "b"]), (["b", "gone"], ["b"]), ([], [])])
def test_what_the_server_lost_waits_again(
    attributes: PendingAttributes, keys: list[str] | None, again: list[str]
) -> None:
    attributes.set({"a": b"1", "b": b"1"})
    attributes.mark([("a", 1), ("b", 1)])
    attributes.tell_again(keys)
    assert [key for key, _, _ in attributes.pending()] == again
