"""One gateway a data directory, also when the directory is moved or removed under it."""

import fcntl
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import pytest

from tasks.consumer import GatewayConsumer, lock_again, single_instance
from tasks.queue import huey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.lock"


@pytest.fixture
def held(path: Path) -> Iterator[list[TextIO]]:
    with single_instance(path) as lock:
        files = [lock]
        yield files
        for file in files[1:]:
            file.close()


def starts(path: Path) -> bool:
    try:
        with ExitStack() as stack:
            stack.enter_context(single_instance(path))
    except SystemExit as reason:
        assert "another gateway already works" in str(reason)
        return False
    return True


def test_a_lock_that_is_in_its_place_is_left_alone(path: Path, held: list[TextIO]) -> None:
    assert lock_again(path, held)
    assert len(held) == 1
    assert not starts(path)


@pytest.mark.parametrize("done", ["directory moved", "directory removed", "lock removed", "lock replaced"])
def test_no_second_gateway_begins_at_the_old_place(path: Path, held: list[TextIO], done: str) -> None:
    if done == "directory moved":
        path.parent.rename(path.parent.with_name("moved"))
    elif done == "directory removed":
        shutil.rmtree(path.parent)
    else:
        path.unlink()
        if done == "lock replaced":
            path.touch(mode=0o600)
    assert lock_again(path, held)
    assert not starts(path)
    if done == "directory moved":
        assert not starts(path.parent.with_name("moved") / path.name), "nor at the new one"


def test_what_cannot_be_locked_now_is_tried_again(path: Path, held: list[TextIO]) -> None:
    path.unlink()
    path.symlink_to("/nowhere")
    assert lock_again(path, held)
    assert len(held) == 1
    path.unlink()
    assert lock_again(path, held)
    assert len(held) == 2


def test_the_slower_one_ends(path: Path, held: list[TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[int] = []
    monkeypatch.setattr("tasks.consumer.os.kill", lambda _, number: signals.append(number))
    monkeypatch.setattr("huey.consumer.Consumer.check_worker_health", lambda _: True)
    consumer = huey.create_consumer()
    assert isinstance(consumer, GatewayConsumer)
    consumer._held, consumer._lock_path = held, path
    path.unlink()
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        consumer.check_worker_health()
        consumer.check_worker_health()
    assert signals == [signal.SIGTERM]
