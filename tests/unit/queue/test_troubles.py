"""Trouble is said once when it begins and once when it ends, and known in between."""

import pytest

from tasks.in_memory import Troubles
from teg.domain.errors import Unavailable


@pytest.fixture
def said() -> list[str]:
    return []


def test_it_is_said_when_it_begins_and_when_it_ends(said: list[str]) -> None:
    troubles = Troubles(said.append)
    for _ in range(50):
        troubles.failed("archive_records", "disk full")
    assert said == ["archive_records cannot do its work: disk full"]
    assert troubles.current() == {"archive_records": "disk full"}
    for _ in range(50):
        troubles.worked("archive_records")
    assert said[1:] == ["archive_records does its work again"]
    assert troubles.current() == {}


def test_one_failure_is_no_trouble(said: list[str]) -> None:
    troubles = Troubles(said.append)
    for _ in range(10):
        troubles.failed("a", "locked")
        troubles.worked("a")
    assert said == []
    assert not troubles.untold


def test_tasks_are_told_apart(said: list[str]) -> None:
    troubles = Troubles(said.append)
    for task in ("a", "b", "a", "b"):
        troubles.failed(task, f"{task} is broken")
    troubles.worked("a")
    assert troubles.current() == {"b": "b is broken"}


def test_what_could_not_be_told_is_told_later(said: list[str]) -> None:
    troubles = Troubles(said.append)
    for _ in range(2):
        troubles.failed("a", "x")

    def refuse(_: dict[str, str]) -> None:
        raise Unavailable("no archive")

    assert troubles.untold
    with pytest.raises(Unavailable):
        troubles.tell(refuse)
    assert troubles.untold
    told: list[dict[str, str]] = []
    troubles.tell(told.append)
    assert told == [{"a": "x"}]
    assert not troubles.untold
