"""The status socket: one answer a question, never stale, no harm from who asks badly."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from teg.adapters.status_socket import NAME, Say, StatusSocket, ask, order
from teg.domain.errors import Unavailable
from tests.support.running import wait_until

Start = Callable[[Path, Callable[[], bytes]], StatusSocket]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[StatusSocket] = []

    def make(directory: Path, answer: Callable[[], bytes]) -> StatusSocket:
        started.append(StatusSocket(directory, lambda request, say: answer()))
        started[-1].start()
        return started[-1]

    yield make
    for each in started:
        each.stop()


def test_every_question_is_answered_anew(tmp_path: Path, start: Start) -> None:
    answers = iter([b"1", b"2" * 300_000])
    start(tmp_path, lambda: next(answers))
    assert ask(tmp_path) == b"1"
    assert ask(tmp_path) == b"2" * 300_000


def test_no_gateway_no_answer(tmp_path: Path, start: Start) -> None:
    assert ask(tmp_path) is None
    assert ask(tmp_path / "nowhere") is None
    start(tmp_path, lambda: b"1").stop()
    assert ask(tmp_path) is None
    assert not (tmp_path / NAME).exists()


def test_what_a_killed_gateway_left_is_replaced(tmp_path: Path, start: Start) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / NAME))
    assert ask(tmp_path) is None
    start(tmp_path, lambda: b"alive")
    assert ask(tmp_path) == b"alive"


def test_a_deep_directory_is_no_problem(tmp_path: Path, start: Start) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    start(deep, lambda: b"deep")
    assert ask(deep) == b"deep"


def test_only_its_owner_may_ask(tmp_path: Path, start: Start) -> None:
    start(tmp_path, lambda: b"1")
    assert (tmp_path / NAME).stat().st_mode & 0o077 == 0


def test_who_goes_away_or_never_reads_keeps_nobody_waiting_for_long(tmp_path: Path, start: Start) -> None:
    start(tmp_path, lambda: b"x" * 3_000_000)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.connect(str(tmp_path / NAME))
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(tmp_path / NAME))
        answer = ask(tmp_path, timeout_s=30.0)
        assert answer is not None
        assert answer.startswith(b"xxx")


def test_a_gateway_that_hangs_is_told_from_none(tmp_path: Path, start: Start) -> None:
    asked, let_go = threading.Event(), threading.Event()

    def hang() -> bytes:
        asked.set()
        let_go.wait(30)
        return b""

    start(tmp_path, hang)
    with pytest.raises(Unavailable, match="does not answer"):
        ask(tmp_path, timeout_s=0.2)
    assert asked.is_set()
    let_go.set()


def test_without_a_place_for_it_the_gateway_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = StatusSocket(tmp_path / "missing", lambda request, say: b"")
    place.start()
    place.stop()
    assert "'teg status' will know less" in caplog.text


def test_stopping_leaves_no_descriptor_and_no_thread(tmp_path: Path, start: Start) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    server = start(tmp_path, lambda: b"1")
    assert ask(tmp_path) == b"1"
    server.stop()
    assert set(Path("/proc/self/fd").iterdir()) == before
    wait_until(lambda: "status-socket" not in {thread.name for thread in threading.enumerate()}, 5, "its thread's end")


def test_an_order_is_heard_its_progress_told_and_its_answer_comes_last(tmp_path: Path) -> None:
    def obey(request: bytes, say: Say) -> bytes:
        say(b"1")
        say(b"2")
        return b"did " + request

    place = StatusSocket(tmp_path, obey)
    place.start()
    told = order(tmp_path, b"that", 5.0)
    assert told is not None
    assert list(told) == [b"1", b"2", b"did that"]
    place.stop()


def test_who_orders_and_goes_away_does_not_stop_the_work(tmp_path: Path) -> None:
    told, gone, done = threading.Event(), threading.Event(), threading.Event()

    def obey(_: bytes, say: Say) -> bytes:
        say(b"begun")
        told.set()
        assert gone.wait(10)
        for _turn in range(100):
            say(b"x" * 10_000)
        done.set()
        return b""

    place = StatusSocket(tmp_path, obey)
    place.start()
    lines = order(tmp_path, b"that", 5.0)
    assert lines is not None
    assert next(lines) == b"begun"
    assert told.wait(10)
    del lines
    gone.set()
    assert done.wait(10)
    place.stop()


def test_how_it_is_can_be_asked_while_an_order_is_obeyed(tmp_path: Path) -> None:
    let_go = threading.Event()

    def obey(request: bytes, _: Say) -> bytes:
        if request:
            let_go.wait(30)
        return b"fine"

    place = StatusSocket(tmp_path, obey)
    place.start()
    lines = order(tmp_path, b"long", 30.0)
    assert ask(tmp_path) == b"fine"
    let_go.set()
    assert lines is not None
    assert list(lines) == [b"fine"]
    place.stop()


def test_a_console_of_an_earlier_version_only_connects(tmp_path: Path, start: Start) -> None:
    start(tmp_path, lambda: b"fine")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(tmp_path / NAME))
        assert connection.recv(100) == b"fine"
