"""Faults of all kinds in a random order, several at a time, over several lives: 0 lost, 0 stuck, the account exact.

The seed is printed; TEG_TORTURE_SEED repeats one, TEG_TORTURE_SECONDS (60) and TEG_TORTURE_SEEDS (5) size the deep run.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.archives import AT_THE_NAMES
from tests.support.fault_site import FaultSite, settle, write_locked


class Schedule:
    """Each step draws an action; what lasts is undone by a later step or at the end."""

    def __init__(self, site: FaultSite, server: ThingsBoard, seed: int) -> None:
        self.site, self.server = site, server
        self.random = random.Random(seed)
        self.counts: dict[str, int] = {}
        self._undo: dict[str, ExitStack] = {}
        self._turn = 0

    def run(self, steps: int, until_s: float) -> None:
        actions = self._actions()
        names = sorted(actions)
        for _ in range(steps):
            if time.monotonic() > until_s:
                break
            name = self.random.choice(names)
            self.counts[name] = self.counts.get(name, 0) + 1
            actions[name]()
            self.site.produce(self.random.randrange(1, 150))
            settle(self.random.uniform(0.0, 0.4))

    def heal(self) -> None:
        for undo in self._undo.values():
            undo.close()
        self._undo.clear()
        self.server.faults.clear()
        if self.site.gateway.process is None:
            self.site.gateway.start()

    def _actions(self) -> dict[str, Callable[[], object]]:
        actions: dict[str, Callable[[], object]] = {
            "kill -9": self.kill,
            "stop": self.stop,
            "pause": self.pause,
            "queue deleted": lambda: shutil.rmtree(self.site.gateway.data_path / "huey_data", ignore_errors=True),
            "server restarts": self.server.restart,
            "connections reset": self.server.reset_connections,
            "server away or back": lambda: self.toggle("listening", self.away),
            "slow acknowledgements": self.slow,
            "archive locked or free": lambda: self.toggle("archive", lambda: self.lock(self.site.database)),
            "inbox locked": self.lock_inbox,
            "nothing": lambda: None,
        }
        for name, what in AT_THE_NAMES.items():
            if "directory" not in name:  # the lock and the token of the running process go with it
                actions[name] = lambda what=what: self.touch(what)  # type: ignore[misc]
        return actions

    def kill(self) -> None:
        self.site.gateway.kill()
        self.site.gateway.start()

    def stop(self) -> None:
        """Of a gateway that is up: before Python runs, SIGTERM still means what the kernel says."""
        if self.site.gateway.process is not None and self.settled_files():
            assert self.site.gateway.stop() == 0
            self.site.gateway.start()

    def pause(self) -> None:
        process = self.site.gateway.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        settle(self.random.uniform(0.1, 1.0))
        process.send_signal(signal.SIGCONT)

    def toggle(self, name: str, begin: Callable[[], ExitStack]) -> None:
        if name in self._undo:
            self._undo.pop(name).close()
        else:
            self._undo[name] = begin()

    def away(self) -> ExitStack:
        self.server.stop_listening()
        stack = ExitStack()
        stack.callback(self.server.start_listening)
        return stack

    def lock(self, path: Path) -> ExitStack:
        stack = ExitStack()
        if path.exists() and path.stat().st_size > 0:
            stack.enter_context(write_locked(path))
        return stack

    def lock_inbox(self) -> None:
        with self.lock(self.site.inbox.path):
            settle(self.random.uniform(0.1, 1.0))

    def slow(self) -> None:
        self.server.faults.puback_delay_s = self.random.choice([0.0, 0.05, 0.3])

    def touch(self, what: Callable[[Path], object]) -> None:
        """Only while the gateway has the files open, and nobody else: of what was removed before, nothing is left."""
        if self.site.gateway.process is None or "archive" in self._undo or not self.settled_files():
            return
        folder = self.site.database.parent
        self._turn += 1
        for name in ("backup", "moved", "second-name", "log", "elsewhere", "older", "other-wal"):
            if os.path.lexists(folder / name):
                (folder / name).rename(folder / f"old-{self._turn}-{name}")
        what(self.site.database)
        deadline = time.monotonic() + 60
        while not self.settled_files():
            assert time.monotonic() < deadline, "the gateway did not make its files sound within a minute"
            settle(0.1)

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


def mixed(path: Path, seed: int, steps: int, seconds: float) -> None:
    print(f"seed {seed}")
    with ThingsBoard(packet_log=0) as server:
        site = FaultSite(path, server)
        schedule = Schedule(site, server, seed)
        try:
            site.gateway.start()
            site.produce(10)
            site.wait_settled()
            schedule.run(steps, time.monotonic() + seconds)
            schedule.heal()
            site.wait_settled(180)
            site.assert_exact()
            assert site.gateway.stop() == 0
            print(f"seed {seed}: {len(site.produced())} records, faults {schedule.counts}")
        except BaseException:
            print(f"seed {seed} failed after {schedule.counts}\n{site.gateway.log()[-6000:]}")
            raise
        finally:
            schedule.heal()
            site.close()


@pytest.fixture
def seed() -> Iterator[int]:
    yield int(os.environ.get("TEG_TORTURE_SEED", time.time_ns() % 1_000_000))


@pytest.mark.timeout(300)
def test_a_sample_of_the_mixed_schedule(tmp_path: Path, seed: int) -> None:
    mixed(tmp_path, seed, steps=15, seconds=15)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", range(int(os.environ.get("TEG_TORTURE_SEEDS", "5"))))
def test_the_mixed_schedule(tmp_path: Path, seed: int, number: int) -> None:
    seconds = float(os.environ.get("TEG_TORTURE_SECONDS", "60"))
    mixed(tmp_path, seed + number, steps=1_000_000, seconds=seconds)
