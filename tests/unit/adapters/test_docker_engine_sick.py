"""An engine that is away, hangs, answers 500 or nonsense: always `Unavailable`, always within the deadline."""

import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.docker_engine import DockerEngine
from teg.adapters.docker_engine import client as client_module
from teg.adapters.docker_engine.client import Engine, NotThere
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.container_profile import ControllerProfile
from teg.domain.supervision.image_ids import ImageIds
from teg.domain.supervision.runtime import Cancelled, NameTaken
from tests.support.controllers import Supervised
from tests.support.running import wait_until
from tests.support.sick_engine import Mood, SickEngine, sick_engine
from tests.support.states import MemoryState


def _build(engine: DockerEngine) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "context").mkdir()
        (Path(name) / "context" / "Dockerfile").write_text("FROM scratch\n")
        engine.build("v1", Path(name) / "context", "./Dockerfile", lambda: False)


CALLS: dict[str, Callable[[DockerEngine], object]] = {
    "observe": lambda engine: engine.observe(),
    "memory_bytes": lambda engine: engine.memory_bytes(),
    "start": lambda engine: engine.start("v1"),
    "stop": lambda engine: engine.stop(1),
    "has_image": lambda engine: engine.has_image("v1"),
    "logs": lambda engine: engine.logs(5),
    "wait_for_change": lambda engine: engine.wait_for_change(0.2),
    "remove_old_images": lambda engine: engine.remove_old_images([], 0),
    "pull": lambda engine: engine.pull("v1", "localhost:5000/x:v1"),
    "build": lambda engine: _build(engine),
}
CONTAINER = {
    "Id": "0123456789abcdef",
    "Name": "/teg_controller",
    "State": {"Running": True, "StartedAt": "2026-01-01T00:00:00Z"},
    "Config": {"Labels": {"teg.managed": "1", "teg.version": "v1", "teg.profile": "other"}, "Image": "x"},
}


def _calls() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "docker-call"]


def profile(tmp_path: Path) -> ControllerProfile:
    return ControllerProfile(data_path=tmp_path / "data", logs_path=tmp_path / "logs")


@pytest.fixture
def sick() -> Iterator[SickEngine]:
    with sick_engine() as server:
        yield server


@pytest.fixture
def engine(sick: SickEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerEngine:
    monkeypatch.setattr(client_module, "SOCKET_TIMEOUT_S", 0.3)
    return DockerEngine(f"unix://{sick.server_address!s}", profile(tmp_path), ImageIds(MemoryState()))


@pytest.mark.parametrize("name", CALLS)
def test_no_socket(name: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file or directory"):
        CALLS[name](DockerEngine(f"unix://{tmp_path}/none.sock", profile(tmp_path), ImageIds(MemoryState())))


@pytest.mark.parametrize("name", CALLS)
def test_a_socket_nobody_listens_to(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as closed:
        monkeypatch.chdir(tmp_path)
        closed.bind("s")
    with pytest.raises(Unavailable, match="Connection refused"):
        CALLS[name](DockerEngine("unix://s", profile(tmp_path), ImageIds(MemoryState())))


@pytest.mark.parametrize("mood", [(500, "server error"), (503, "starting"), "nonsense", "half", "close", [1, 2]])
@pytest.mark.parametrize("name", ["observe", "start", "stop", "has_image", "remove_old_images"])
def test_every_bad_answer_is_transient(sick: SickEngine, engine: DockerEngine, name: str, mood: Mood) -> None:
    sick.mood = mood
    with pytest.raises(Unavailable):
        CALLS[name](engine)


@pytest.mark.parametrize("mood", [(500, "server error"), "nonsense", "close", "hang"])
def test_an_engine_that_cannot_even_tell_its_version(sick: SickEngine, engine: DockerEngine, mood: Mood) -> None:
    sick.moods["/version"] = mood
    with pytest.raises(Unavailable):
        engine.observe()


def test_the_message_says_what_the_engine_answered(sick: SickEngine, engine: DockerEngine) -> None:
    sick.mood = (500, "devmapper: thin pool is full")
    with pytest.raises(Unavailable, match=r"answered 500.*thin pool is full"):
        engine.observe()


@pytest.mark.parametrize("name", ["observe", "start", "stop", "has_image", "logs"])
def test_a_hanging_engine_is_given_up(sick: SickEngine, engine: DockerEngine, name: str) -> None:
    sick.mood = "hang"
    with pytest.raises(Unavailable):
        CALLS[name](engine)


@pytest.mark.parametrize("name", ["build", "pull"])
def test_an_engine_that_hangs_before_a_long_call_is_not_waited_for_an_hour(
    sick: SickEngine, engine: DockerEngine, name: str
) -> None:
    sick.moods["/version"] = "hang"
    with pytest.raises(Unavailable):
        CALLS[name](engine)


def test_a_pull_that_goes_silent_is_given_up(
    sick: SickEngine, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teg.adapters.docker_engine.images.SILENCE_S", 0.3)
    sick.moods["/images/create"] = "hang"
    with pytest.raises(Unavailable):
        CALLS["pull"](engine)


def test_an_engine_that_drips_forever_is_given_up(sick: SickEngine) -> None:
    """The socket's time-out never fires; only the deadline of the whole call does."""
    sick.mood = "endless"
    with pytest.raises(Unavailable, match=r"within 0\.5 s"):
        Engine(f"unix://{sick.server_address!s}").call(
            lambda client: [*client.build(path="/usr/share/debconf", decode=True)], 0.5
        )


@pytest.mark.parametrize("mood", ["endless", "late"])
def test_a_stream_that_says_nothing_can_be_cancelled(
    sick: SickEngine, engine: DockerEngine, tmp_path: Path, mood: Mood
) -> None:
    """Whether the engine has begun to answer by then, or begins only after the call was given up."""
    sick.moods["/build"] = mood
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    wanted = threading.Event()
    builds: list[BaseException] = []

    def build() -> None:
        try:
            engine.build("v1", tmp_path, "./Dockerfile", wanted.is_set)
        except Refused as reason:
            builds.append(reason)

    building = threading.Thread(target=build)
    building.start()
    wait_until(lambda: any("/build" in line for line in sick.asked), 10, "the build's request")
    wanted.set()
    building.join(10)
    assert [type(reason) for reason in builds] == [Cancelled]
    sick.answering.set()
    wait_until(lambda: not _calls(), 10, "the end of the call: its connection has to be closed")


def test_not_there_and_refused_are_told_apart_from_transient_failures(sick: SickEngine, engine: DockerEngine) -> None:
    plain = Engine(f"unix://{sick.server_address!s}")
    with pytest.raises(NotThere):
        plain.call(lambda client: client.inspect_container("x"))
    sick.mood = (409, "conflict")
    with pytest.raises(Refused, match="conflict"):
        plain.call(lambda client: client.inspect_container("x"))


def test_a_stop_that_does_not_stop_is_not_believed(sick: SickEngine, engine: DockerEngine) -> None:
    sick.mood = {}
    sick.moods["/teg_controller/json"] = CONTAINER
    with pytest.raises(Unavailable, match="neither SIGTERM nor SIGKILL"):
        engine.stop(1)
    assert any("/kill" in line for line in sick.asked)


def test_a_foreign_container_with_our_name_is_left_alone(sick: SickEngine, engine: DockerEngine) -> None:
    sick.moods["/teg_controller/json"] = CONTAINER | {"Config": {"Labels": {}, "Image": "postgres:15"}}
    for name in ("observe", "start", "stop", "logs", "memory_bytes"):
        with pytest.raises(NameTaken, match="postgres:15"):
            CALLS[name](engine)
    assert {line.split()[0] for line in sick.asked} == {"GET"}


def test_no_thread_and_no_socket_stays_behind(sick: SickEngine, engine: DockerEngine) -> None:
    """Unclosed sockets are warnings, and warnings are errors here."""
    before = threading.active_count()
    for mood in ((500, "x"), "close", "half", "nonsense", (404, "x")):
        sick.mood = mood
        for _ in range(5):
            with pytest.raises((Unavailable, Refused)):
                engine.start("v1")
    wait_until(lambda: not _calls(), 10, "the end of the calls")
    assert threading.active_count() <= before + 30  # the server's own threads of connections just closed


@pytest.mark.parametrize("mood", [(500, "server error"), "hang", "nonsense", "close"])
def test_the_supervisor_reports_a_sick_engine_and_converges(
    sick: SickEngine, engine: DockerEngine, tmp_path: Path, mood: Mood
) -> None:
    around = Supervised(tmp_path, runtime=engine)  # type: ignore[arg-type]
    sick.mood = mood
    around.look()
    assert around.report.current["controller_state"] == "engine unreachable"
    sick.mood = (404, "no such image")
    around.look()
    assert around.report.current["controller_state"] == "image missing"


def test_what_was_given_up_is_not_done_later(sick: SickEngine, engine: DockerEngine) -> None:
    """A call of two requests: the answer to the first comes when nobody waits any more."""
    sick.mood = "delayed"

    def work(client: Any) -> None:
        with suppress(Exception):  # as a call does that may go on without this answer
            client.inspect_container("one")
        client.remove_container("one")

    with pytest.raises(Unavailable, match="did not finish"):
        Engine(engine._engine.host).call(work, deadline_s=0.1, silence_s=20)
    sick.mood = CONTAINER
    sick.answering.set()
    wait_until(lambda: not _calls(), 10, "the end of the call")
    assert not any(asked.startswith("DELETE") for asked in sick.asked), sick.asked


def test_a_clock_that_is_set_back_does_not_end_the_watch(
    sick: SickEngine, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker refuses a time that begins after its end; so the next look is due instead, and the watch goes on."""
    event = {"Type": "container", "Action": "die", "timeNano": 2_000_000_000 * 10**9}
    sick.mood = event
    assert engine.wait_for_change(0.2), "an event; the next ones are asked for from its time on"
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000 * 10**9)
    asked = len(sick.asked)
    assert engine.wait_for_change(0.2), "look, and do not rely on what was told"
    assert len(sick.asked) == asked
    assert engine.wait_for_change(0.2)
    [since, until] = re.findall(r"(?:since|until)=([0-9.]+)", sick.asked[-1])
    assert sorted([float(since), float(until)])[0] == pytest.approx(1_000_000_000)
