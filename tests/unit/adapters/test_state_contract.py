"""The promise of `ports.State`, kept by the table of `gateway.db` and by what other tests use in its place."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.adapters.gateway_db import state as tables
from teg.adapters.gateway_db.database import Database
from teg.domain.ports import State
from tests.support.controllers import BreakableState
from tests.support.ota_world import Effects, FakeState
from tests.support.states import MemoryState

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


def in_database(directory: Path) -> State:
    database = Database(directory / "gateway.db")
    database.open(tables.SCHEMA)
    return tables.StateTable(database)


KINDS: dict[str, Callable[[Path], State]] = {
    "database": in_database,
    "memory": lambda _: MemoryState(),
    "memory of supervision": lambda _: BreakableState(),
    "memory of updates": lambda _: FakeState(Effects()),
}


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


@pytest.fixture(params=KINDS)
def state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    return KINDS[request.param](tmp_path)


def test_what_was_never_put_is_none(state: State) -> None:
    assert state.get("a") is None
    assert state.keys("") == []
    state.delete("a")  # and that is no error


def test_the_last_value_of_a_key_counts(state: State) -> None:
    state.put("a", 1)
    state.put("a", {"b": [1, 2.5, None, True, "é"]})
    assert state.get("a") == {"b": [1, 2.5, None, True, "é"]}
    state.delete("a")
    assert state.get("a") is None


def test_none_is_a_value_for_keys_and_none_for_get(state: State) -> None:
    state.put("a", None)
    assert state.get("a") is None
    assert state.keys("a") == ["a"]


def test_keys_have_the_prefix_and_come_in_order(state: State) -> None:
    for key in ("b/2", "a", "b/10", "b", "b/1", "c/b/"):
        state.put(key, key)
    assert state.keys("b/") == ["b/1", "b/10", "b/2"]
    assert state.keys("b") == ["b", "b/1", "b/10", "b/2"]
    assert state.keys("") == ["a", "b", "b/1", "b/10", "b/2", "c/b/"]
    assert state.keys("%") == state.keys("b/_") == []


def test_a_kept_value_is_not_the_callers_own(state: State) -> None:
    value = {"list": [1]}
    state.put("a", value)
    value["list"].append(2)
    assert state.get("a") == {"list": [1]}
    state.get("a")["list"].append(3)
    assert state.get("a") == {"list": [1]}


def test_a_tuple_comes_back_as_a_list(state: State) -> None:
    state.put("a", (1, (2, 3)))
    assert state.get("a") == [1, [2, 3]]


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), {1: "a"}, 2**64, date, "\ud800"])
def test_what_json_cannot_carry_is_an_error_and_changes_nothing(state: State, value: Any) -> None:
    state.put("a", "before")
    with pytest.raises(TypeError):
        state.put("a", value)
    assert state.get("a") == "before"


@pytest.mark.parametrize("kind", KINDS)
def test_every_json_value_comes_back(kind: str, tmp_path: Path) -> None:
    state = KINDS[kind](tmp_path)

    @given(JSON)
    def comes_back(value: Any) -> None:
        state.put("a", value)
        assert repr(state.get("a")) == repr(value)

    comes_back()
