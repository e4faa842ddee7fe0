"""Updates under any sequence of wishes, kills, crashes and outages: the device always ends with a controller."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from teg.domain.errors import Refused, Unavailable
from tests.support.ota_world import Killed, World

VERSIONS = ["v1", "v2", "v3", "bad", "mute", "--evil", None]


class Device(RuleBasedStateMachine):
    """v1 runs at first; `bad` crashes at its start, `mute` never sends a heartbeat."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()
        self.world = World(Path(self._directory.name))
        self.world.engine.crashing.add("bad")
        self.world.engine.silent.add("mute")
        self.wanted: str | None = None

    def teardown(self) -> None:
        self._directory.cleanup()

    @rule(version=st.sampled_from(VERSIONS), pushed=st.booleans())
    def assign(self, version: str | None, pushed: bool) -> None:
        self._alive(lambda: self._assign(version, pushed))

    def _assign(self, version: str | None, pushed: bool) -> None:
        if pushed:
            self.world.update.pushed(["sw_version"])
        self.world.assign(version)
        self.wanted = version

    @rule(rounds=st.integers(1, 4))
    def advance(self, rounds: int) -> None:
        for _ in range(rounds):
            self._alive(self._advance)

    def _advance(self) -> None:
        try:
            self.world.update.advance()
        except Unavailable:
            self.world.clock.pass_s(30)
            self.world.supervisor.supervise()

    @rule(effects=st.integers(1, 25))
    def soon_killed(self, effects: int) -> None:
        self.world.effects.kill_at = self.world.effects.count + effects

    @rule(steps=st.integers(1, 60), wish=st.sampled_from(VERSIONS))
    def another_wish_in_the_trial(self, steps: int, wish: str | None) -> None:
        self.world.while_waiting = [lambda: None] * steps + [lambda: self._assign(wish, True)]

    @rule(failures=st.integers(1, 4))
    def no_network(self, failures: int) -> None:
        self.world.source.failures = [Unavailable("no network")] * failures

    @rule()
    def refused_by_the_source(self) -> None:
        self.world.source.failures = [Refused("no such version")]

    @rule()
    def controller_dies(self) -> None:
        if self.world.engine.seen.running:
            self.world.engine.end(1)

    @rule(down=st.booleans())
    def engine(self, down: bool) -> None:
        self.world.engine.down = down

    @rule(hours=st.integers(-5, 5))
    def clock_jumps(self, hours: int) -> None:
        self.world.clock.wall_ms += hours * 3_600_000

    @rule()
    def reboot(self) -> None:
        self.world.clock.reboot()
        if self.world.engine.seen.running:
            self.world.engine.end(255)
        self.world.reboot_gateway()

    def _alive(self, work) -> None:  # type: ignore[no-untyped-def]
        try:
            work()
        except Killed:
            self.world.reboot_gateway()

    @invariant()
    def the_committed_version_has_proven_itself(self) -> None:
        """With v1 to go back to, neither a crashing nor a mute version is ever committed."""
        assert self.world.supervisor.version() in ("v1", "v2", "v3")

    @rule()
    def comes_to_rest(self) -> None:
        """Given peace, the device ends with the committed version running and nothing left in progress."""
        world = self.world
        world.effects.kill_at, world.engine.down, world.while_waiting = None, False, []
        world.source.failures = []
        world.settle()
        world.supervise_for_s(1000)
        world.settle()
        assert world.records.job() is None
        assert world.runs == world.supervisor.version()
        if world.report.updates():
            assert world.last()["sw_state"] in ("UPDATED", "FAILED")
            assert world.last()["current_sw_version"] == world.runs
        if self.wanted in ("bad", "mute", "--evil"):
            assert world.runs != self.wanted


Device.TestCase.settings = settings(max_examples=40, stateful_step_count=25, suppress_health_check=list(HealthCheck))
TestDevice = Device.TestCase
