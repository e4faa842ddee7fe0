"""A device in memory for tests of updates: engine, clock, state and server, with the real supervisor and records.

`kill_at` ends the "process" at the n-th effect (a write of state or a call of the engine), before or after it took
place; `reboot_gateway` builds everything anew over what is left, as a new process would.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import AcceptRules, Source
from teg.domain.ota.job import Job
from teg.domain.ota.rollout import Replacement, TelemetryKeys, TrialRules
from teg.domain.ota.sources import Cancelled, SoftwareSource
from teg.domain.ota.store import UpdateStore
from teg.domain.ota.updater import SoftwareUpdate
from teg.domain.supervision.supervisor import Supervisor
from teg.domain.supervision.version import ControllerVersion
from teg.domain.telemetry.reporting import Reporter
from tests.support.controllers import RuntimeInMemory
from tests.support.own_reports import FakeAttributes, FakeOwn, FakeSession
from tests.support.states import MemoryState

TRIAL_S = 120.0


class Killed(BaseException):
    """kill -9: nothing of ours catches it."""


class Effects:
    """Counts what is done to the outside, and dies at the chosen one."""

    def __init__(self) -> None:
        self.count = 0
        self.kill_at: int | None = None
        self.log: list[str] = []

    def around(self, name: str, effect: Callable[[], Any]) -> Any:
        """Two places to die at an effect: just before it and just after it."""
        self._step(name)
        result = effect()
        self._step(f"{name} done")
        return result

    def _step(self, name: str) -> None:
        self.log.append(name)
        self.count += 1
        if self.kill_at == self.count:
            raise Killed(name)


class FakeClock:
    def __init__(self) -> None:
        self.wall_ms = 1_700_000_000_000
        self.steady_s = 1_000.0
        self.boot = "boot-1"

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_s(self) -> float:
        return self.steady_s

    def boot_id(self) -> str:
        return self.boot

    def pass_s(self, seconds: float) -> None:
        self.wall_ms += round(seconds * 1000)
        self.steady_s += seconds

    def reboot(self) -> None:
        self.boot, self.steady_s = self.boot + "'", 20.0


class FakeState(MemoryState):
    """Its writes are effects."""

    def __init__(self, effects: Effects) -> None:
        super().__init__()
        self._effects = effects

    def put(self, key: str, value: Any) -> None:
        self._effects.around(f"put {key}", lambda: super(FakeState, self).put(key, value))

    def delete(self, key: str) -> None:
        self._effects.around(f"delete {key}", lambda: super(FakeState, self).delete(key))


class Told:
    """What the gateway's reporter has stored for the server."""

    def __init__(self) -> None:
        self.own = FakeOwn()

    def updates(self) -> list[Mapping[str, Any]]:
        return [values for _, values in self.own.records if "sw_state" in values]

    def states(self) -> list[str]:
        return [values["sw_state"] for values in self.updates()]

    def forget(self) -> None:
        self.own.records.clear()


class FakeEngine(RuntimeInMemory):
    """The engine in memory, whose versions behave as told and whose changes are effects; it outlives the gateway."""

    def __init__(self, clock: FakeClock, effects: Effects) -> None:
        super().__init__()
        self.now_ms = clock.now_ms
        self.down = False
        self.crashing: set[str] = set()  #: end with code 1 as soon as they are started
        self.silent: set[str] = set()  #: never send a heartbeat
        self.unstartable: set[str] = set()
        self.removals: list[Collection[str]] = []
        self.starts: list[str] = []
        self.heartbeat_ms: int | None = None
        self._effects = effects

    def check(self) -> None:
        if self.down:
            raise Unavailable("the engine is down")

    def run(self, version: str) -> None:
        self._effects.around(f"start {version}", lambda: self._run(version))

    def _run(self, version: str) -> None:
        if version in self.unstartable:
            self.images[version] = "cannot"
        super().run(version)
        self.starts.append(version)
        if version in self.crashing:
            self.output.append(f"last words of {version}")
            self.end(1)

    def stop(self, timeout_s: float = 60) -> None:
        self.check()
        self._effects.around("stop", lambda: super(FakeEngine, self).stop(timeout_s))

    def obtain(self, version: str, behaviour: str = "runs") -> None:
        self.check()
        self._effects.around(f"image {version}", lambda: super(FakeEngine, self).obtain(version, behaviour))

    def remove_old_images(self, keep: Collection[str], now_ms: int) -> None:
        self.removals.append(tuple(keep))
        super().remove_old_images(keep, now_ms)

    def last_heartbeat_ms(self) -> int | None:
        if self.seen.running and self.seen.version not in self.silent:
            self.heartbeat_ms = self.now_ms()
        return self.heartbeat_ms


class FakeSource:
    """A source whose next steps can be made to fail; records what was asked of it."""

    def __init__(self, engine: FakeEngine) -> None:
        self.failures: list[Exception] = []
        self.steps: list[str] = []
        self.during: Callable[[], None] = lambda: None
        self.held = 0
        self.clears = 0
        self._engine = engine

    def held_bytes(self, job: Job) -> int:
        return self.held

    def fetch(self, job: Job, cancelled: Cancelled) -> Job:
        self._step("fetch", job)
        return replace(job, commit="c" * 40) if job.assignment.source is Source.GIT else job

    def verify(self, job: Job) -> None:
        self._step("verify", job)

    def install(self, job: Job, cancelled: Cancelled) -> None:
        self._step("install", job)
        self._engine.obtain(job.version)

    def clear(self) -> None:
        self.clears += 1

    def _step(self, name: str, job: Job) -> None:
        self.steps.append(f"{name} {job.version}")
        self.during()
        if self.failures:
            raise self.failures.pop(0)


class World:
    """One device; `update` is the machine under test, `supervisor` the real one.

    Other `sources` and `rules` are those of the next process (`reboot_gateway`), as settings are.
    """

    def __init__(self, tmp_path: Path, running: str | None = "v1", keys: TelemetryKeys | None = None) -> None:
        self.effects = Effects()
        self.clock = FakeClock()
        self.state = FakeState(self.effects)
        self.report = Told()
        self.reporter = Reporter(
            self.report.own, FakeAttributes(), FakeSession(), self.clock, lambda: None, lambda: None
        )
        self.engine = FakeEngine(self.clock, self.effects)
        self.source = FakeSource(self.engine)
        self.sources: dict[Source, SoftwareSource] = dict.fromkeys(Source, self.source)
        self.rules = AcceptRules(registries=("registry.example",))
        self.wake: Callable[[], object] = lambda: None
        self.stopping = threading.Event()
        self.while_waiting: list[Callable[[], None]] = []
        self._file = tmp_path / "last_launched_controller_version.txt"
        self._keys = keys
        self.reboot_gateway()
        if running is not None:
            self.engine.images[running] = "runs"
            self.supervisor.commit_version(running)
            self.supervisor.supervise()
        self.effects.log.clear()
        self.effects.count = 0

    def reboot_gateway(self) -> None:
        """A new process over the same state and engine, up to the moment before its first turns."""
        self.effects.kill_at = None
        versions = ControllerVersion(self.state, self._file, None)
        self.supervisor = Supervisor(
            runtime=self.engine,
            heartbeat=self.engine,
            state=self.state,
            report=self.reporter,
            clock=self.clock,
            versions=versions,
            health_limit_s=21_600,
            start_grace_s=60,
            spread=lambda: 1.0,
        )
        records = UpdateStore(self.state, self.reporter, self.engine, self.supervisor)
        replacement = Replacement(
            runtime=self.engine,
            controller=self.supervisor,
            heartbeat=self.engine,
            records=records,
            clock=self.clock,
            rules=TrialRules(trial_s=TRIAL_S, keys=self._keys),
            pause=self.pause,
        )
        self.records = records
        self.update = SoftwareUpdate(
            records=records,
            replacement=replacement,
            sources=self.sources,
            runtime=self.engine,
            controller=self.supervisor,
            clock=self.clock,
            rules=self.rules,
            settle_s=0.0,
            stopping=self.stopping,
            wake=lambda: self.wake(),
            pause=self.pause,
        )

    def pause(self, seconds: float) -> bool:
        """Time passes; the next of `while_waiting` happens meanwhile."""
        self.clock.pass_s(seconds)
        if self.while_waiting:
            self.while_waiting.pop(0)()
        return self.stopping.is_set()

    def assign(self, version: str | None, **more: Any) -> None:
        shared = {} if version is None else {"sw_version": version, "sw_title": "ctl", **more}
        self.update.wanted(shared)

    def settle(self, rounds: int = 60) -> None:
        """Advance until nothing is left to do, with time passing over what can only be done later."""
        for _ in range(rounds):
            try:
                self.update.advance()
            except Unavailable:
                self.clock.pass_s(30)
                self.supervisor.supervise()
            else:
                return
        raise AssertionError(f"not at rest after {rounds} rounds: {self.records.job()}")

    def supervise_for_s(self, seconds: int) -> None:
        """What the supervisor alone does in that time."""
        for _ in range(seconds + 1):
            self.supervisor.supervise()
            self.clock.pass_s(1)

    @property
    def runs(self) -> str | None:
        return self.engine.seen.version if self.engine.seen.running else None

    def last(self) -> Mapping[str, Any]:
        return self.report.updates()[-1]


class FakeKeys:
    """`TelemetryKeys` of a controller that sends the same keys all the time; from `from_ms` on those of `later`."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.keys = list(keys)
        self.later: list[str] | None = None
        self.from_ms = 0

    def keys_between(self, start_ms: int, end_ms: int) -> Collection[str]:
        if end_ms <= start_ms:
            return []
        if self.later is None or end_ms <= self.from_ms:
            return self.keys
        return self.later if start_ms >= self.from_ms else [*self.keys, *self.later]


__all__ = ["FakeKeys", "Killed", "Refused", "World"]
