"""The state machine of all faults: a real gateway on a small disk, behind a bad link, with a clock that jumps."""

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from teg.adapters.gateway_db.quarantine import DONE, KEPT_ONLY
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.torture.link import FaultyLink
from teg.simulator.torture.run import add_link_faults
from teg.simulator.torture.schedule import Schedule
from tests.support.archives import AT_THE_NAMES
from tests.support.disks import fill, small_disk
from tests.support.fault_site import FaultSite, settle, write_locked

TARGET = "tests.support.shifted_gateway.huey"
HOUR_MS = 3_600_000
#: What the games with names leave in the directory.
LEFT_BEHIND = ("backup", "moved", "second-name", "log", "elsewhere", "older", "other-wal")


class MixedFaults:
    """Adds what only a test can do to what `teg torture` does: names of files, a disk really full, clocks, signals."""

    def __init__(self, site: FaultSite, server: ThingsBoard, link: FaultyLink, seed: int) -> None:
        self.site, self.server, self.link = site, server, link
        self.schedule = Schedule(seed, self.produce)
        self.random = self.schedule.random
        self._refused = 0  #: inserts that the producer could not make
        self._add_processes()
        self._add_storage()
        add_link_faults(self.schedule, link)
        delays = [0.0, 0.05, 0.3]
        self.schedule.add("slow", lambda: setattr(server.faults, "puback_delay_s", self.random.choice(delays)))
        self.schedule.add("server restarts", server.restart)
        jumps = [-24 * HOUR_MS, -HOUR_MS, 0, HOUR_MS, 24 * HOUR_MS]
        self.schedule.add("clock set", lambda: set_clock(site, self.random.choice(jumps)))

    def start(self) -> None:
        self.site.gateway.start(target=TARGET)

    def heal(self) -> None:
        self.schedule.heal()
        self.link.heal()
        self.server.faults.clear()
        if self.site.gateway.process is None:
            self.start()

    def produce(self) -> None:
        with suppress(sqlite3.OperationalError):  # no room, or locked: not recorded
            self.site.produce(self.random.randrange(1, 150))
        settle(self.random.uniform(0.0, 0.4))

    def _add_processes(self) -> None:
        self.schedule.add("kill -9", self.kill)
        self.schedule.add("stop", self.stop)
        self.schedule.add("pause", self.pause)

    def _add_storage(self) -> None:
        schedule, site = self.schedule, self.site
        schedule.add("queue deleted", lambda: shutil.rmtree(site.gateway.data_path / "huey_data", ignore_errors=True))
        schedule.add("inbox locked", self.lock_inbox)
        filler = site.gateway.directory / "filler"
        schedule.add_lasting("disk full", lambda: fill(filler), lambda: filler.unlink(missing_ok=True))
        held = ExitStack()
        schedule.add_lasting("archive locked", lambda: held.enter_context(locked(site.database)), held.close)
        for name, what in AT_THE_NAMES.items():
            if "directory" not in name:  # the lock and the token of the running process go with it
                schedule.add(name, lambda what=what: self.touch(what))  # type: ignore[misc]

    def kill(self) -> None:
        self.site.gateway.kill()
        self.start()

    def stop(self) -> None:
        self.site.wait_up()
        assert self.site.gateway.stop() == 0
        self.start()

    def pause(self) -> None:
        process = self.site.gateway.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        settle(self.random.uniform(0.1, 1.0))
        process.send_signal(signal.SIGCONT)

    def lock_inbox(self) -> None:
        with locked(self.site.inbox.path):
            settle(self.random.uniform(0.1, 1.0))

    def touch(self, what: Callable[[Path], object]) -> None:
        """Only while the gateway has the files open, and nobody else, and can make them sound again."""
        schedule = self.schedule
        if any(map(schedule.lasts, ("archive locked", "disk full"))) or not self.settled_files():
            return
        self._tidy()
        what(self.site.database)
        deadline = time.monotonic() + 60
        while not self.settled_files():
            assert time.monotonic() < deadline, "the gateway did not make its files sound within a minute"
            settle(0.1)

    def _tidy(self) -> None:
        """What earlier games left, and what was moved aside and is not needed: the disk is small."""
        folder = self.site.database.parent
        notes = [note for kind in (DONE, KEPT_ONLY) for note in (folder / "quarantine").glob(f"*/{kind}")]
        for path in (*(folder / name for name in LEFT_BEHIND), *(note.parent for note in notes)):
            if path.is_dir():
                shutil.rmtree(path)
            elif os.path.lexists(path):
                path.unlink()

    def settled_files(self) -> bool:
        """The gateway has a database, a log and an index open that stand at their names."""
        process = self.site.gateway.process
        assert process is not None
        wanted = {str(self.site.database) + suffix for suffix in ("", "-wal", "-shm")}
        try:
            opened = {str(entry.readlink()) for entry in Path(f"/proc/{process.pid}/fd").iterdir()}
        except OSError:
            return False
        return wanted <= opened


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """By another program, if there is something to lock, and room to lock it."""
    with ExitStack() as stack:
        if path.exists() and path.stat().st_size > 0:
            with suppress(sqlite3.OperationalError):
                stack.enter_context(write_locked(path))
        yield


def set_clock(site: FaultSite, off_by_ms: int) -> None:
    """At once: the gateway reads the file whenever it asks for the time."""
    place = Path(site.gateway.environment["CLOCK_OFF_BY"])
    new = place.with_name("clock.new")
    new.write_text(str(off_by_ms))
    new.replace(place)


def mixed(path: Path, seed: int, steps: int, seconds: float) -> None:
    print(f"seed {seed}")
    with ExitStack() as stack:
        if os.geteuid() == 0:
            stack.enter_context(small_disk(path / "site", "96m"))
        server = stack.enter_context(ThingsBoard(packet_log=0))
        link = stack.enter_context(FaultyLink((server.host, server.port)))
        site = FaultSite(path, server, TB_HOST=link.host, TB_PORT=str(link.port), CLOCK_OFF_BY=str(path / "clock"))
        site.gateway.log_path = path / "gateway.log"  # not on the disk that is filled: it is read when something fails
        set_clock(site, 0)
        faults = MixedFaults(site, server, link, seed)
        try:
            faults.start()
            site.produce(10)
            site.wait_settled()
            faults.schedule.run(time.monotonic() + seconds, steps)
            faults.heal()
            site.wait_settled(180)
            site.assert_exact()
            site.wait_up()
            assert site.gateway.stop() == 0
            print(f"seed {seed}: {len(site.produced())} records, faults {dict(faults.schedule.counts)}")
        except BaseException:
            print(f"seed {seed} failed after {dict(faults.schedule.counts)}\n{site.gateway.log()[-6000:]}")
            raise
        finally:
            faults.heal()
            site.close()
