"""Which version of MQTT the server answered: one server's, over restarts, and for a week where it was the old one."""

from typing import Any

import pytest

from teg.domain.errors import Unavailable
from teg.domain.server.remembered_version import ASKED_AGAIN_AFTER_MS, VERSION_KEY, RememberedVersion
from tests.support.states import MemoryState

OLD, NEW = 4, 5
NOW_MS = 1_767_225_600_000


def memory(state: Any, server: str = "tb.example.org:8883", now_ms: int = NOW_MS) -> RememberedVersion:
    return RememberedVersion(state, server, lambda: now_ms)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_what_was_kept_is_read_in_the_next_life(version: int) -> None:
    state = MemoryState()
    memory(state).keep(version)
    assert memory(state).read(newest=NEW) == version


@pytest.mark.parametrize("server", ["tb.example.org:1883", "other.example.org:8883"])
def test_another_server_has_another_memory(server: str) -> None:
    state = MemoryState()
    memory(state).keep(OLD)
    assert memory(state, server).read(newest=NEW) is None


def test_an_old_version_is_asked_about_again_after_a_week_and_the_newest_never() -> None:
    state = MemoryState()
    for version, later in ((OLD, None), (NEW, NEW)):
        memory(state).keep(version)
        assert memory(state, now_ms=NOW_MS + ASKED_AGAIN_AFTER_MS - 1).read(newest=NEW) == version
        assert memory(state, now_ms=NOW_MS + ASKED_AGAIN_AFTER_MS).read(newest=NEW) == later
        assert memory(state, now_ms=NOW_MS - 1).read(newest=NEW) == later, "a clock that was set back"


def test_forgotten_is_forgotten() -> None:
    state = MemoryState()
    memory(state).keep(OLD)
    memory(state).forget()
    assert memory(state).read(newest=NEW) is None


@pytest.mark.parametrize("value", [None, 5, "5", [], {"server": "tb.example.org:8883"}, {"version": 5}])
def test_what_is_no_memory_is_none(value: Any) -> None:
    state = MemoryState()
    state.put(VERSION_KEY, value)
    assert memory(state).read(newest=NEW) is None


class Locked:
    """Every access fails, as while the database is set right."""

    def __getattr__(self, _: str) -> Any:
        def fail(*_: object) -> None:
            raise Unavailable("locked")

        return fail


def test_an_archive_that_is_not_to_be_had_costs_the_memory_and_nothing_else() -> None:
    found = memory(Locked())
    assert found.read(newest=NEW) is None
    found.keep(OLD)
    found.forget()
