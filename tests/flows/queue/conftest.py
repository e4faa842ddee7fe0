"""A queue on a real file, without the timetable of the gateway."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.huey_app import GatewayHuey
from tasks.lanes import Lane
from tasks.queue import huey as the_huey
from tasks.queue import task
from tests.support.queue_file import FakeTime


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "huey_data" / "huey.db"


@pytest.fixture(autouse=True)
def no_timetable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this session may have imported the gateway with its own."""
    monkeypatch.setattr(the_huey, "timetable", ())


@pytest.fixture
def queue(path: Path) -> Iterator[GatewayHuey]:
    the_huey.open(f"sqlite://{path}")
    yield the_huey
    the_huey.close()


@pytest.fixture
def declare() -> Iterator[Callable[..., Any]]:
    """`declare(name, body, lane=…)` makes a task for this test only."""
    made: list[Any] = []

    def make(name: str, body: Callable[..., None], lane: Lane = Lane.WORK, **options: Any) -> Any:
        made.append(task(name=name, lane=lane, **options)(body))
        return made[-1]

    yield make
    for wrapper in made:
        wrapper.unregister()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)
