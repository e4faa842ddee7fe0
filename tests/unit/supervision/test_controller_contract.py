"""The promises of `ports.Controller` and `ports.Heartbeat`, kept by the real ones and by what other tests use."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from teg.adapters.inbox.mailbox import Inbox
from teg.domain.errors import Unavailable
from teg.domain.ports import Controller, Heartbeat
from tests.support import controllers, ota_world, remote_files, rpc
from tests.support.controllers import Supervised
from tests.support.running import ControllerInbox

NOW_MS = 1_767_225_600_000


@dataclass
class Subject:
    """A controller that runs, and how to make what carries it out unreachable."""

    controller: Controller
    break_it: Callable[[], object]


def supervisor(path: Path) -> Subject:
    site = Supervised(path)
    site.look()
    site.runtime.output = ["first line", "last line"]

    def away() -> None:
        site.runtime.failure = Unavailable("the engine is away")

    return Subject(site.supervisor, away)


def of_calls(_: Path) -> Subject:
    fake = rpc.FakeController()
    return Subject(fake, lambda: setattr(fake, "broken", Unavailable("the engine is away")))


def of_files(_: Path) -> Subject:
    fake = remote_files.Controller()
    return Subject(fake, lambda: setattr(fake, "problem", Unavailable("the engine is away")))


@pytest.fixture(params=[supervisor, of_calls, of_files], ids=lambda kind: str(kind.__name__))
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    made: Subject = request.param(tmp_path)
    return made


def test_one_that_runs_says_since_when_and_as_what(subject: Subject) -> None:
    since_ms = subject.controller.running_since_ms()
    assert type(since_ms) is int and 1_600_000_000_000 < since_ms < 4_000_000_000_000
    summary = subject.controller.summary()
    assert summary["controller_state"] == "running"
    assert isinstance(summary["controller_version"], str)


def test_a_restart_leaves_it_running(subject: Subject) -> None:
    subject.controller.restart("asked for by a test")
    assert subject.controller.running_since_ms() is not None
    assert subject.controller.summary()["controller_state"] == "running"


def test_the_last_lines_come_oldest_first(subject: Subject) -> None:
    every = subject.controller.logs(100)
    assert len(every) > 1
    assert subject.controller.logs(1) == every[-1:]
    assert subject.controller.logs(len(every)) == every


def test_what_needs_the_engine_raises_without_it_and_what_is_known_is_told(subject: Subject) -> None:
    before = subject.controller.running_since_ms()
    subject.break_it()
    with pytest.raises(Unavailable):
        subject.controller.restart("asked for by a test")
    with pytest.raises(Unavailable):
        subject.controller.logs(10)
    assert subject.controller.running_since_ms() in (before, None), "from memory"
    assert subject.controller.summary()["controller_state"]


# --- its sign of life -------------------------------------------------------------------------------------------


@dataclass
class Life:
    heartbeat: Heartbeat
    beat: Callable[[int], object]
    lock: Callable[[], object]


@contextmanager
def in_the_inbox(path: Path) -> Iterator[Life]:
    with closing(ControllerInbox(path / "communication_queue.db")) as controller:

        def lock() -> None:
            controller.connection.execute("PRAGMA journal_mode=DELETE")
            controller.connection.execute("BEGIN EXCLUSIVE")

        with closing(Inbox(path / "communication_queue.db")) as inbox:
            yield Life(inbox, controller.heartbeat, lock)


@contextmanager
def fixed(_: Path) -> Iterator[Life]:
    fake = controllers.FixedHeartbeat()
    yield Life(fake, lambda ms: setattr(fake, "value_ms", ms), lambda: setattr(fake, "locked", True))


@contextmanager
def of_remote_files(_: Path) -> Iterator[Life]:
    fake = remote_files.Controller()
    yield Life(fake, lambda ms: setattr(fake, "heartbeat_ms", ms), lambda: setattr(fake, "locked", True))


@pytest.fixture(params=[in_the_inbox, fixed, of_remote_files], ids=lambda kind: str(kind.__name__))
def life(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Life]:
    with request.param(tmp_path) as made:
        yield made


def test_before_the_first_there_is_none_then_the_newest(life: Life) -> None:
    assert life.heartbeat.last_heartbeat_ms() is None
    life.beat(NOW_MS)
    assert life.heartbeat.last_heartbeat_ms() == NOW_MS
    life.beat(NOW_MS - 3_600_000)
    assert life.heartbeat.last_heartbeat_ms() == NOW_MS - 3_600_000, "also of a clock that was set back"


def test_a_locked_inbox_is_no_silence(life: Life) -> None:
    life.beat(NOW_MS)
    life.lock()
    with pytest.raises(Unavailable):
        life.heartbeat.last_heartbeat_ms()


def test_the_engine_of_updates_beats_while_its_version_does() -> None:
    clock = ota_world.FakeClock()
    engine = ota_world.FakeEngine(clock, ota_world.Effects())
    assert engine.last_heartbeat_ms() is None
    engine.obtain("v1")
    engine.start("v1")
    assert engine.last_heartbeat_ms() == clock.now_ms()
