"""Everything around the supervisor in a few lines each: a runtime in memory, a clock to turn, reports to read."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.container_profile import Rights
from teg.domain.supervision.runtime import (
    ABSENT,
    Cancelled,
    ImageMissing,
    KeptImage,
    Observation,
    StartFailed,
    image_name,
    plan_removals,
)
from teg.domain.supervision.supervisor import Supervisor
from teg.domain.supervision.version import ControllerVersion
from tests.support.states import MemoryState


@dataclass
class TurnedClock:
    """A wall clock and a monotonic one that only tests move."""

    wall_ms: int = 1_767_225_600_000
    uptime_s: float = 1_000.0
    boot: str = "boot-1"

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_s(self) -> float:
        return self.uptime_s

    def boot_id(self) -> str:
        return self.boot

    def advance(self, seconds: float) -> None:
        self.uptime_s += seconds
        self.wall_ms += round(seconds * 1000)

    def reboot(self) -> None:
        self.boot, self.uptime_s = self.boot + "'", 20.0


class BreakableState(MemoryState):
    """While `broken`, nothing can be written."""

    broken = False

    def put(self, key: str, value: Any) -> None:
        if self.broken:
            raise Unavailable("the disk is full")
        super().put(key, value)


@dataclass
class ReportInMemory:
    records: list[Mapping[str, Any]] = field(default_factory=list)
    current: dict[str, Any] = field(default_factory=dict)
    attribute_calls: int = 0
    broken: bool = False

    def telemetry(self, values: Mapping[str, Any], ts_ms: int | None = None) -> None:
        if self.broken:
            raise Unavailable("the disk is full")
        self.records.append(values)

    def attributes(self, values: Mapping[str, Any]) -> None:
        if self.broken:
            raise Unavailable("the disk is full")
        self.attribute_calls += 1
        self.current |= values


@dataclass
class FixedHeartbeat:
    value_ms: int | None = None
    locked: bool = False

    def last_heartbeat_ms(self) -> int | None:
        if self.locked:
            raise Unavailable("the inbox is locked")
        return self.value_ms


class RuntimeInMemory:
    """`ControllerRuntime` without an outside: what a version does is the word in its context's main.py."""

    def __init__(self, images: Collection[str] = (), profile: str = "profile-1") -> None:
        self.images: dict[str, str] = dict.fromkeys(images, "runs")
        self.created_ms: dict[str, int] = {}
        self.seen = ABSENT
        self.calls: list[str] = []
        self.failure: Exception | None = None
        self.start_failure: Exception | None = None
        self.mount_failure: Exception | None = None
        self.output: list[str] = []
        self.changed = False
        self.now_ms: Callable[[], int] = lambda: 1_767_225_600_000
        self.loosened: list[Rights] = []
        self._profile = self._first_profile = profile
        self._runs = 0

    def profile(self) -> str:
        return self._profile

    def set_profile(self, profile: str) -> None:
        """Other settings from now on."""
        self._profile = profile

    def check(self) -> None:
        """Raise what an engine that cannot be reached would."""
        if self.failure is not None:
            raise self.failure

    def observe(self) -> Observation:
        self.check()
        return self.seen

    def memory_bytes(self) -> int | None:
        self.check()
        return 12_345_678 if self.seen.running else None

    def loosen(self, rights: Rights) -> None:
        self.loosened.append(rights)
        self._profile = f"{self._first_profile} with {rights}"

    def forget(self) -> None:
        """As a new gateway finds it: only the settings are known."""
        self.loosened, self._profile = [], self._first_profile

    def prepare(self, version: str) -> None:
        self.check()
        if version not in self.images:
            raise ImageMissing(f"no image of {version}")
        if self.mount_failure is not None:
            raise self.mount_failure

    def start(self, version: str) -> None:
        self.check()
        if self.seen.runs(version) and self.seen.profile == self._profile:
            return
        self.prepare(version)
        self.run(version)

    def run(self, version: str) -> None:
        """Replace whatever runs."""
        self.calls.append(f"start {version}")
        self.seen = ABSENT
        if self.start_failure is not None:
            raise self.start_failure
        if self.images[version] == "cannot":
            raise StartFailed("no such program")
        self._runs += 1
        self.output = [f"hello {version}"]
        self.seen = Observation(
            exists=True,
            running=True,
            run_id=f"run-{self._runs}",
            version=version,
            profile=self._profile,
            started_ms=self.now_ms(),
        )
        self.changed = True
        if self.images[version] == "exits":
            self.output.append("bye")
            self.end(3)

    def stop(self, timeout_s: float = 60) -> None:
        self.check()
        if self.seen.running:
            self.calls.append("stop")
            self.end(137 if self.images.get(self.seen.version or "") == "stubborn" else 0)

    def end(self, exit_code: int, **more: Any) -> None:
        self.seen = replace(self.seen, running=False, paused=False, exit_code=exit_code, **more)
        self.changed = True

    def vanish(self) -> None:
        self.seen = ABSENT
        self.changed = True

    def has_image(self, version: str) -> bool:
        self.check()
        return version in self.images

    def build(self, version: str, context: Path, dockerfile: str, cancelled: Callable[[], bool]) -> None:
        if cancelled():
            raise Cancelled("cancelled")
        if not context.is_dir():
            raise Refused("no context")
        self.obtain(version, (context / "behaviour").read_text())

    def load_archive(self, version: str, path: Path) -> None:
        self.obtain(version)

    def pull(self, version: str, reference: str, cancelled: Callable[[], bool] = lambda: False) -> None:
        self.obtain(version)

    def obtain(self, version: str, behaviour: str = "runs") -> None:
        self.images[version], self.created_ms[version] = behaviour, self.now_ms()

    def lose_image(self, version: str) -> None:
        self.images.pop(version, None)

    def remove_old_images(self, keep: Collection[str], now_ms: int) -> None:
        kept = {image_name(version): version for version in self.images}
        in_use = self.seen.version if self.seen.exists else None
        images = [
            KeptImage(name, self.created_ms.get(version, 0), 1, version == in_use) for name, version in kept.items()
        ]
        for name in plan_removals(images, keep, now_ms):
            del self.images[kept[name]]

    def logs(self, lines: int) -> list[str]:
        self.check()
        return self.output[-lines:] if self.seen.exists else []

    def wait_for_change(self, timeout_s: float) -> bool:
        self.check()
        changed, self.changed = self.changed, False
        return changed

    def close(self) -> None: ...


@dataclass
class Supervised:
    """A supervisor with everything around it in memory; `again` is the gateway started anew on the same state."""

    directory: Path
    runtime: RuntimeInMemory = field(default_factory=lambda: RuntimeInMemory(["v1", "v2"]))
    clock: TurnedClock = field(default_factory=TurnedClock)
    state: BreakableState = field(default_factory=BreakableState)
    report: ReportInMemory = field(default_factory=ReportInMemory)
    heartbeat: FixedHeartbeat = field(default_factory=FixedHeartbeat)
    default_version: str | None = "v1"
    health_limit_s: float = 21_600
    start_grace_s: float = 60

    def __post_init__(self) -> None:
        if isinstance(self.runtime, RuntimeInMemory):
            self.runtime.now_ms = self.clock.now_ms
        self.again()

    @property
    def version_file(self) -> Path:
        return self.directory / "last_launched_controller_version.txt"

    def again(self) -> None:
        self.supervisor = Supervisor(
            runtime=self.runtime,
            heartbeat=self.heartbeat,
            state=self.state,
            report=self.report,
            clock=self.clock,
            versions=ControllerVersion(self.state, self.version_file, self.default_version),
            health_limit_s=self.health_limit_s,
            start_grace_s=self.start_grace_s,
            spread=lambda: 1.0,
        )

    def look(self) -> None:
        self.supervisor.supervise()

    def look_until(self, seconds: float, every_s: float = 60.0) -> None:
        """Let `seconds` pass with a look at every planned moment."""
        end_s = self.clock.uptime_s + seconds
        while self.clock.uptime_s < end_s:
            left_s = self.supervisor.next_check.left_s()
            step_s = min(every_s, end_s - self.clock.uptime_s, max(0.01, left_s if left_s is not None else every_s))
            self.clock.advance(step_s)
            self.look()
