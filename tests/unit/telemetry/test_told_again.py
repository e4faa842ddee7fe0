"""After a connect: what the server shows otherwise than it was told goes again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from teg.adapters.gateway_db import state
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.state import ClientAttributeTable
from teg.domain.telemetry.reporting import COMPARED_BYTES, Reporter, differing


class Shown:
    def __init__(self, shown: Mapping[str, Any]) -> None:
        self.shown = dict(shown)
        self.asked: list[tuple[str, ...]] = []

    def request_attributes(
        self, client_keys: Sequence[str] = (), shared_keys: Sequence[str] = ()
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        self.asked.append(tuple(client_keys))
        return {key: self.shown[key] for key in client_keys if key in self.shown}, {}


def pending_after(
    tmp_path: Path, told: dict[str, bytes], shown: Mapping[str, Any], connects: int = 1
) -> list[list[str]]:
    database = Database(tmp_path / "gateway.db")
    database.open(state.SCHEMA)
    table, source = ClientAttributeTable(database), Shown(shown)
    none: Any = None
    reporter = Reporter(none, table, none, none, lambda: None, lambda: None, source=source)
    table.set(told)
    found = []
    for _ in range(connects):
        table.mark([(key, change) for key, _, change in table.pending()])
        reporter.tell_what_differs()
        found.append([key for key, _, _ in table.pending()])
    database.close()
    return found


def test_what_the_server_forgot_or_shows_otherwise_is_told_again(tmp_path: Path) -> None:
    told = {"FILE_HASHES": b'{"a":"1"}', "controller_version": b'"v2"', "same": b"1"}
    assert pending_after(tmp_path, told, {"controller_version": "v1", "same": 1}) == [
        ["FILE_HASHES", "controller_version"]
    ]


def test_what_the_server_keeps_in_its_own_way_is_told_again_once(tmp_path: Path) -> None:
    assert pending_after(tmp_path, {"a": b"1e30"}, {"a": "1e30"}, connects=3) == [["a"], [], []]


def test_large_values_and_keys_that_cannot_be_asked_for_are_left_alone(tmp_path: Path) -> None:
    told = {"large": b'"' + b"x" * COMPARED_BYTES + b'"', "with,comma": b"1"}
    assert pending_after(tmp_path, told, {}) == [[]]


def test_what_the_server_shows_differently_is_told_again() -> None:
    told = {"a": b"1", "b": b'"1.10"', "c": b'{"x":[1,2]}', "d": b'"text"', "e": b"true", "f": b'"x"'}
    shown = {"a": 1, "b": 1.1, "c": {"x": [1, 2]}, "d": "other", "e": True}
    assert differing(told, shown) == ["d", "f"]
