"""A queue file that cannot be opened at the start, or is something else: work goes on, and the file comes later."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks import huey_app
from tasks.huey_app import GatewayHuey
from tasks.queue import huey as the_huey
from tests.support.queue_file import Workers
from tests.support.running import wait_until


@pytest.fixture
def closed() -> Iterator[GatewayHuey]:
    yield the_huey
    the_huey.close()


def test_tasks_run_from_memory_until_the_file_can_be_opened(
    closed: GatewayHuey,
    declare: Callable[..., Any],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(huey_app, "OPEN_AGAIN_S", 0.0)
    path.parent.write_text("in the way")
    ran: list[int] = []
    work = declare("work", ran.append)
    closed.open_when_possible(f"sqlite://{path}", "teg")
    with Workers():
        wait_until(lambda: closed.tended, 10, "the scheduler tends it")
        work(1)
        wait_until(lambda: ran == [1], 10, "it runs")
        assert "the queue is back" not in caplog.text, "memory that can be written is not the queue"
        path.parent.unlink()
        wait_until(lambda: "the queue is back" in caplog.text, 20, "the file is there")
        work(2)
        wait_until(lambda: ran == [1, 2], 10, "it runs")
    assert path.is_file()
    assert caplog.text.count("trying again until it is back") == 1


def test_idle_workers_wait_while_it_cannot(closed: GatewayHuey, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.write_text("in the way")
    closed.open_when_possible(f"sqlite://{path}", "teg")
    waits: list[float] = []
    monkeypatch.setattr(closed.wake_up, "wait", lambda _lane, _seen, timeout_s: waits.append(timeout_s))
    assert closed.dequeue() is None
    assert waits == [huey_app.IDLE_WAIT_S], "or it would spin"


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["directory", "dangling link", "fifo"])
def test_something_else_in_its_place_goes_aside(closed: GatewayHuey, path: Path, suffix: str, kind: str) -> None:
    the_huey.open(f"sqlite://{path}")
    the_huey.close()
    name = path.with_name(path.name + suffix)
    name.unlink(missing_ok=True)
    if kind == "directory":
        name.mkdir()
        (name / "somebody's").touch()
    elif kind == "fifo":
        os.mkfifo(name)
    else:
        name.symlink_to("/nowhere/at/all")
    closed.open(f"sqlite://{path}")
    assert path.is_file()
    [aside] = [other for other in path.parent.iterdir() if other.name.endswith(suffix) and ".damaged-" in other.name]
    assert not aside.is_file(), "kept as it was"
