"""What can go wrong with a record on the device, each in one process; every scenario ends with its books compared.

A scenario raises `LedgerError` when a record is lost, doubled or not accounted for. With the protection that it is
meant for it does not; `protections.py` takes them out one by one.
"""

import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from tasks import consumer, huey_app
from tasks.lanes import Lane
from tasks.queue import huey
from tasks.services import Services
from tasks.storage import QueueFile
from tasks.telemetry import archive_records
from tasks.timetable import Every
from teg.adapters.ballast import Ballast
from teg.adapters.gateway_db.connections import Damaged
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.retention import Retention
from tests.support import storage_life
from tests.support.disks import LoopDisk, fill, small_disk
from tests.support.legacy import Reference
from tests.support.links import FakeClock
from tests.support.storage_life import LedgerError, Life, Server, compare


class Killed(BaseException):
    """The process ends here."""


class World:
    """A device over several lives. A kill leaves what lies under the names of the files at that moment."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, proofs: bool = False) -> None:
        self.path = path
        self.monkeypatch = monkeypatch
        self.folder = path / "life-0"
        self.folder.mkdir()
        (self.folder / "controller").mkdir()
        self.server = Server(path / "server")
        self.produced: list[int] = []
        self._proofs = proofs
        self._lives: list[Life] = []

    @property
    def database(self) -> Path:
        return self.folder / "data" / "gateway.db"

    @property
    def life(self) -> Life:
        if not self._lives:
            self._lives.append(Life(self.folder, self.server, self._proofs))
        return self._lives[-1]

    def produce(self, rows: int) -> None:
        numbers = range(len(self.produced) + 1, len(self.produced) + rows + 1)
        storage_life.produce(self.folder, numbers)
        self.produced += numbers

    def archive(self, rows: int) -> None:
        """Accepted, and not sent yet."""
        self.produce(rows)
        self.life.patiently(self.life.ingest)

    @contextmanager
    def dying_at(self, owner: object, name: str, when: Callable[..., bool] = lambda *_: True) -> Iterator[None]:
        """The process is killed at the call, before it does anything."""
        original = getattr(owner, name)

        def die(*arguments: object, **options: object) -> object:
            if when(*arguments):
                raise Killed(name)
            return original(*arguments, **options)

        with self.monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, name, die)
            yield
        self.kill()

    def kill(self) -> None:
        """Copied by another process: closing a descriptor of the files here would drop their locks."""
        after = self.path / f"life-{len(list(self.path.glob('life-*')))}"
        subprocess.run(["cp", "-a", self.folder, after], check=True)
        for index in after.glob("*/*-shm"):
            index.unlink()
        self.stop()
        self.folder = after

    def stop(self) -> None:
        while self._lives:
            with suppress(Unavailable, OSError):
                self._lives.pop().close()

    def settle(self) -> None:
        self.server.reconnect()
        self.life.settle()
        self.stop()

    def settle_without_ingest(self) -> None:
        self.life.patiently(self.life.publish)
        self.stop()

    def compare(self, lost: int = 0) -> None:
        compare(self.folder, self.server, self.produced, lost=lost)


Scenario = Callable[[World], None]


def connection_ends_before_the_puback(world: World) -> None:
    world.archive(50)
    world.server.mode = "drop"
    world.life.patiently(world.life.publish, tries=1)
    world.settle()
    world.compare()


def kill_while_a_batch_is_archived(world: World) -> None:
    world.produce(50)
    with world.dying_at(type(world.life.records), "store"):
        world.life.ingest()
    world.settle()
    world.compare()


def kill_between_archive_and_inbox(world: World) -> None:
    world.produce(50)
    with world.dying_at(type(world.life.inbox), "delete"):
        world.life.ingest()
    world.settle()
    world.compare()


def database_taken_away(world: World) -> None:
    world.archive(50)
    backup = world.database.with_name("backup")
    backup.mkdir()
    for file in world.database.parent.glob("gateway.db*"):
        file.rename(backup / file.name)
    world.archive(50)
    world.kill()
    world.settle()
    world.compare()


def inbox_made_anew_while_its_rows_wait(world: World) -> None:
    world.produce(4)
    life = world.life
    with world.monkeypatch.context() as patch:
        patch.setattr(life.inbox, "delete", locked)
        life.patiently(life.ingest)
    for file in (world.folder / "controller").iterdir():
        file.unlink()
    world.produce(4)
    life.patiently(lambda: life.recorder.run(lambda: True))  # a stop empties the inbox without reading it again
    life.patiently(life.ingest)
    world.settle()
    world.compare()


def locked(_: object) -> None:
    raise Unavailable("database is locked")


def acknowledged_around_a_row_that_waits(world: World) -> None:
    world.archive(30)
    rows = [row for row in world.life.records.pending(Stream.DATA, 0, 100, 1 << 20) if row[0] != 7]
    world.server.publish("", b"[" + b",".join(row[3] for row in rows) + b"]", lambda _: None)
    world.life.records.mark_published([Delivery(Stream.DATA, [row[0] for row in rows], False)])
    world.settle()
    world.compare()


def second_take_over_of_a_database_made_anew(world: World) -> None:
    for numbers in (range(1, 21), range(21, 41)):
        for part in (world.folder / "old", world.folder / "controller"):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
        reference = Reference(world.folder / "old", world.folder / "controller" / "communication_queue.db")
        for number in numbers:
            reference.queued(number)
        reference.close()
        world.produced += numbers
        world.life.patiently(world.life.take_over)
    world.settle()
    world.compare()


def database_emptied_between_two_lives(world: World) -> None:
    world.archive(40)
    world.life.keeper.tend()
    world.stop()
    world.database.write_bytes(b"")
    world.archive(10)
    world.settle()
    world.compare(lost=40)


def page_of_the_outbox_overwritten(world: World) -> None:
    world.archive(300)
    [(page,)] = world.life.database.rows("SELECT rootpage FROM sqlite_master WHERE name = 'outbox'")
    world.stop()
    with world.database.open("r+b") as file:
        file.seek((page - 1) * 1024)
        file.write(b"\xa5" * 1024)
    world.settle()
    world.compare()


def server_forgets_what_it_acknowledged(world: World) -> None:
    world.archive(40)
    world.server.mode = "queue"
    world.life.patiently(world.life.publish)
    world.server.crash()
    world.settle()
    world.compare()


def acknowledgement_for_a_row_of_the_old_file(world: World) -> None:
    world.archive(20)
    on_the_way = [row[0] for row in world.life.records.pending(Stream.DATA, 0, 100, 1 << 20)]
    with suppress(Damaged), world.life.database.reading("SELECT 1"):
        raise Damaged("a page that is damaged was read")
    world.archive(20)
    world.life.records.mark_published([Delivery(Stream.DATA, on_the_way, False)])
    world.settle()
    world.compare()


def database_removed_and_its_log_left(world: World) -> None:
    world.archive(30)
    world.kill()
    world.database.unlink()
    world.settle()
    world.compare()


def kill_in_the_middle_of_a_rescue(world: World) -> None:
    world.archive(30)
    world.database.rename(world.database.with_name("backup"))
    with world.dying_at(Path, "rename", lambda path, _: path.name.endswith(".whole")):
        world.archive(5)
    world.settle()
    world.compare()


def evicted_while_on_the_way(world: World) -> None:
    world.archive(600)
    rows = world.life.records.pending(Stream.DATA, 0, 1000, 1 << 20)
    world.life.maintenance.shrink(1, None)
    world.life.records.mark_published([Delivery(Stream.DATA, [row[0] for row in rows], False)])
    counts = world.life.maintenance.counts()
    storage_life.account(counts, counts["pending"])


def archive_grows_by_the_minute(world: World) -> None:
    """Everything is delivered, so everything may go: the file stays near its quota."""
    quota = 300_000
    clock = FakeClock()
    disk = Ballast(world.folder / "ballast")
    retention = Retention(world.life.maintenance, disk, clock, quota, None)
    retention.run()
    for _ in range(8):
        world.archive(1000)
        world.life.patiently(world.life.publish)
        clock.advance(60)
        if retention.due:
            retention.run()
        if (size := world.life.maintenance.file_bytes()) > quota * 1.5:
            raise LedgerError(f"the archive takes {size} bytes, its quota is {quota}")


def disk_full(world: World) -> None:
    """To the last byte, by somebody else; delivered rows may go to make room for new ones."""
    with small_disk(world.folder / "data", "16m"):
        world.archive(3000)
        world.life.patiently(world.life.publish)
        ballast = Ballast(world.folder / "data" / "gateway.db.ballast")
        retention = Retention(world.life.maintenance, ballast, FakeClock(), 1 << 30, None)
        retention.run()
        fill(world.folder / "data" / "filler")
        world.produce(200)
        for _ in range(3):
            with suppress(Unavailable):
                retention.run()
            world.life.patiently(world.life.ingest)
        archived = {ts - storage_life.START_MS for (ts,) in world.life.database.rows("SELECT ts FROM record")}
        world.stop()
    if missing := set(world.produced[-200:]) - archived:
        raise LedgerError(f"{len(missing)} records could not be archived")


def power_fails(world: World) -> None:
    """Rows leave the inbox, which lies on another disk, when they are in the archive: then the power fails."""
    disk = LoopDisk(world.path / "image", world.folder / "data")
    with disk:
        world.archive(200)
        disk.cut()
        world.stop()
        disk.power_on()
        world.settle()
        world.compare()


def queue_cannot_be_written(world: World) -> None:
    """The trigger to archive does not go into the queue file: its disk is full."""
    services = cast(Services, SimpleNamespace(recorder=world.life.recorder, stopping=threading.Event()))
    world.produce(20)
    world.monkeypatch.setattr(huey_app, "IDLE_WAIT_S", 0.0)
    world.monkeypatch.setattr(huey_app, "DOWN_WAIT_S", 0.0)
    huey.open(f"sqlite://{world.folder}/huey_data/huey.db")
    try:
        huey.tended = True
        huey.serve(Lane.TELEMETRY)
        with huey.serving(services), world.monkeypatch.context() as patch:
            patch.setattr(QueueFile, "enqueue", _disk_is_full)
            with suppress(Unavailable):
                archive_records()
            while (task := huey.dequeue()) is not None:
                huey.execute(task)
    finally:
        huey.close()
    if (waiting := len(world.produced) - len(world.life.database.rows("SELECT id FROM record"))) > 0:
        raise LedgerError(f"{waiting} records stay in the inbox")


def _disk_is_full(*_: object) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


def clock_set_back(world: World) -> None:
    """By an hour, between two looks of the timetable: what is due is due."""
    clock = FakeClock()
    world.monkeypatch.setattr(consumer, "time", SimpleNamespace(monotonic=clock.monotonic_s, time=clock.now_ms))
    ingest: Any = SimpleNamespace(name="ingest", run=lambda: world.life.patiently(world.life.ingest))
    queue = MagicMock(timetable=(Every(20.0, ingest),))
    queue.next_look.return_value = ()
    queue.trigger.side_effect = lambda task: task.run()
    scheduler = consumer.TimetableScheduler(queue, interval=1, periodic=False, stop_flag=threading.Event())
    scheduler.initialize()
    scheduler.loop()
    world.produce(20)
    clock.ms -= 3_600_000
    clock.s += 30
    scheduler.loop()
    world.settle_without_ingest()
    world.compare()


@contextmanager
def a_world(path: Path, monkeypatch: pytest.MonkeyPatch, proofs: bool = False) -> Iterator[World]:
    storage_life.read_in_this_process(monkeypatch.setattr)
    world = World(path, monkeypatch, proofs)
    try:
        yield world
    finally:
        world.stop()
