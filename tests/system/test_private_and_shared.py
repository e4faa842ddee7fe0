"""The real gateway in the reference's layout: its own files move out; other overlaps stop the start."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import CONSUMER, PROJECT, ControllerInbox, RunningGateway, measurements, message


class ReferenceLayout:
    """One directory for gateway and controller, as the reference left it, and the server."""

    def __init__(self, directory: Path, server: ThingsBoard) -> None:
        self.both, self.private = directory / "both", directory / "both-private"
        self.both.mkdir()
        (self.both / "tb_access_token").write_text("T1")
        (self.both / "last_launched_controller_version.txt").write_text("v1.2")
        self.device: Device = server.add_device("pi", token="T1")
        self.gateway = RunningGateway(directory / "gateway", server.host, server.port, "")
        self.gateway.environment |= {
            "TEG_DATA_PATH": str(self.both),
            "TEG_CONTROLLER_DATA_PATH": str(self.both),
            "TEG_CONTROLLER_LOGS_PATH": str(self.both / "logs"),
            "THINGSBOARD_ACCESS_TOKEN": str(self.both / "tb_access_token"),
        }
        self.inbox = ControllerInbox(self.both / "communication_queue.db")

    def names(self) -> set[str]:
        return {path.name for path in self.both.iterdir()}

    def arrives(self, first: int, last: int) -> None:
        self.inbox.insert_many(message(number) for number in range(first, last + 1))
        expected = {point for point, _ in measurements(1, last).items()}
        self.device.wait_for(lambda _: expected <= self.device.telemetry().keys(), 60, f"{last} records")
        self.device.assert_each_stored_once(measurements(1, last))


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[ReferenceLayout]:
    with ThingsBoard() as server:
        made = ReferenceLayout(tmp_path, server)
        with closing(made.inbox):
            yield made


def test_the_references_layout_is_taken_over(layout: ReferenceLayout) -> None:
    before = layout.names()
    with layout.gateway as gateway:
        layout.device.wait_connected(30)
        layout.arrives(1, 20)
        assert gateway.stop() == 0
        assert layout.names() - before <= {"communication_queue.db-wal", "communication_queue.db-shm"}
        assert before - layout.names() >= {"tb_access_token", "last_launched_controller_version.txt"}
        assert (layout.private / "tb_access_token").read_text() == "T1"
        assert f"{layout.both} is the controller's directory; what is the gateway's alone" in gateway.log()
        gateway.start()
        layout.arrives(21, 30)
        status = subprocess.run(
            [Path(sys.executable).parent / "teg", "status"], env=gateway.environment, capture_output=True, text=True
        )
        assert f"out of {layout.both}, which the controller sees, to {layout.private}" in status.stdout
        assert "running" in status.stdout and "accepted     30" in status.stdout


def test_every_file_it_makes_is_its_own_whatever_the_umask(layout: ReferenceLayout) -> None:
    umask = os.umask(0)
    try:
        layout.gateway.start()
    finally:
        os.umask(umask)
    try:
        layout.device.wait_connected(30)
        layout.arrives(1, 5)
        paths = [layout.private, *layout.private.rglob("*")]
        assert {path.name for path in paths} >= {"gateway.db", "gateway.db-wal", "gateway.lock", "huey.db"}
        open_ones = {str(path): oct(path.stat().st_mode) for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077}
        assert open_ones == {}
    finally:
        layout.gateway.kill()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becoming another account needs root")
def test_another_account_cannot_lock_the_gateway_out(layout: ReferenceLayout) -> None:
    lock = layout.private / "gateway.lock"
    with layout.gateway as gateway:
        layout.device.wait_connected(30)
        assert gateway.stop() == 0
    for path in layout.private.parents:
        if path.stat().st_mode & 0o001 == 0 and path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o011)  # pytest's own; only the private directory shall hold
    command = ["setpriv", "--reuid", "65534", "--clear-groups", "flock", "--shared", "--nonblock", str(lock), "true"]
    assert subprocess.run(command, capture_output=True).returncode != 0
    with layout.gateway as gateway:
        layout.device.wait_connected(30)


def test_an_overlap_stops_the_start_with_one_message(layout: ReferenceLayout) -> None:
    environment = layout.gateway.environment | {"TEG_DATA_PATH": str(layout.both / "gateway"), "TB_PORT": "x"}
    done = subprocess.run([CONSUMER, "gateway.huey"], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "TEG_CONTROLLER_DATA_PATH" in done.stderr and "TB_PORT" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (layout.both / "gateway").exists()


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_a_lock_that_is_no_file_is_not_used(kind: str, layout: ReferenceLayout, tmp_path: Path) -> None:
    tripwire = tmp_path / "tripwire"
    tripwire.write_text("untouched")
    layout.private.mkdir(mode=0o700)
    lock = layout.private / "gateway.lock"
    make = {"link": lambda: lock.symlink_to(tripwire), "folder": lambda: lock.mkdir(), "fifo": lambda: os.mkfifo(lock)}
    make[kind]()
    environment = layout.gateway.environment
    done = subprocess.run([CONSUMER, "gateway.huey"], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert str(lock) in line
    assert (tripwire.read_text(), tripwire.stat().st_mode & 0o777) == ("untouched", 0o644)
