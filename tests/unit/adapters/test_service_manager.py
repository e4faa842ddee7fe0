"""What systemd hears, on a real datagram socket."""

import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.service_manager import ServiceManager


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    family = socket.AF_UNIX, socket.SOCK_DGRAM
    with tempfile.TemporaryDirectory(prefix="teg-notify-") as directory, socket.socket(*family) as bound:
        bound.bind(str(Path(directory) / "notify"))
        bound.settimeout(5)
        yield bound


def test_the_life_of_a_service(manager: socket.socket) -> None:
    service = ServiceManager(manager.getsockname())
    service.ready()
    service.alive()
    service.stopping()
    assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_alive_is_said_now_and_then_only(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    service = ServiceManager(manager.getsockname())
    for now_s in (1000.0, 1001.0, 1029.9, 1030.0):  # noqa: B007 - read by the lambda
        service.alive()
    manager.settimeout(0)
    assert [manager.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_an_abstract_name() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("")  # Linux chooses a name
        name = bound.getsockname().decode(errors="replace")
        ServiceManager("@" + name[1:]).ready()
        bound.settimeout(5)
        assert bound.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager(None).ready()
    ServiceManager("").alive()
    assert caplog.text == ""


def test_a_manager_that_has_gone_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager("/nowhere/notify").ready()
    assert "does not hear us (READY=1)" in caplog.text
