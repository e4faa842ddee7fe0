"""The power fails while a real gateway works on an ext4 file system: what had not reached the disk is gone."""

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.disks import LoopDisk
from tests.support.fault_site import FaultSite, settle
from tests.support.running import ControllerInbox, wait_until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")]


class MainsPowered:
    """A site on a disk of its own; the producer's ledger and the server lie elsewhere."""

    def __init__(self, path: Path, server: ThingsBoard) -> None:
        self._path = path
        self.disk = LoopDisk(path / "image", path / "site")
        self.disk.__enter__()
        self.site = FaultSite(path, server)
        subprocess.run(["sync", "-f", path / "site"], check=True)  # what an installation put there has long been there

    def cut(self) -> None:
        """Between two instructions of every process on it; then all of them are gone, with what was in memory."""
        process = self.site.gateway.process
        assert process is not None
        everyone = [process.pid, *children(process.pid)]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        self.disk.cut()
        for pid in everyone:
            os.kill(pid, signal.SIGKILL)
        self.site.gateway.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in everyone), 20, "all are gone")
        self.site.inbox.close()
        self.disk.power_on()
        for database in (self.site.database, self.site.inbox.path):
            self._assert_sound(database)
        self.site.inbox = ControllerInbox(self.site.inbox.path)

    def _assert_sound(self, database: Path) -> None:
        """Looked at in a copy: what a recovery writes is the gateway's affair."""
        copy = self._path / "looked-at"
        subprocess.run(["rm", "-rf", copy], check=True)
        copy.mkdir()
        for part in (database, database.with_name(database.name + "-wal")):
            if part.exists():
                subprocess.run(["cp", part, copy], check=True)
        with closing(sqlite3.connect(copy / database.name)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], database

    def close(self) -> None:
        self.site.close()
        self.disk.__exit__(None, None, None)


def children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for text in lists for child in text.read_text().split()]


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(packet_log=0) as server:
        yield server


def run(path: Path, server: ThingsBoard, cuts: int) -> None:
    seed = int(os.environ.get("TEG_TORTURE_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}")
    moments = random.Random(seed)
    server.faults.puback_delay_s = 0.05
    device = MainsPowered(path, server)
    site = device.site
    try:
        for _ in range(cuts):
            site.gateway.start()
            site.wait_up()
            for _ in range(moments.randrange(1, 6)):
                site.produce(moments.randrange(1, 80))
                settle(moments.uniform(0.0, 0.3))
            device.cut()
        site.gateway.start()
        site.wait_up()
        site.wait_settled(180)
        site.assert_exact()
        assert not (site.gateway.data_path / "quarantine").exists()
        again = site.device.duplicates
        print(f"{len(site.produced())} records, {cuts} power cuts, 0 lost, 0 corrupt, {again} values came again")
    finally:
        device.close()


def test_a_sample_of_power_cuts(tmp_path: Path, server: ThingsBoard) -> None:
    run(tmp_path, server, 2)


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_power_cuts(tmp_path: Path, server: ThingsBoard) -> None:
    run(tmp_path, server, int(os.environ.get("TEG_TORTURE_CUTS", "50")))
