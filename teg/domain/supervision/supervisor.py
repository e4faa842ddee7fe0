"""Keeps the controller running: observe, plan, act, report; one thread at a time."""

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.ports import Clock, Heartbeat, Report, State
from teg.domain.supervision import policy
from teg.domain.supervision import report as reports
from teg.domain.supervision.container_profile import describe, encode_rights, parse_rights
from teg.domain.supervision.policy import Action, Decision, History, Moment, Rules
from teg.domain.supervision.report import Condition, ControllerTeller, View
from teg.domain.supervision.runtime import ControllerRuntime, ImageMissing, MountRefused, NameTaken, Observation
from teg.domain.supervision.version import ControllerVersion

logger = logging.getLogger("gateway.supervision")

HISTORY_KEY = "controller.history"
RIGHTS_KEY = "controller.rights"

#: An engine that cannot be reached, a name that is taken, an image that is missing: looked at again after this.
RETRY_S = 10.0
#: A heartbeat alone is written to the disk no more often than this.
STORE_HEARTBEAT_S = 600.0
#: A stop takes 60 s and a kill at most: so long one thread waits for the other.
STOP_TIMEOUT_S = 60.0
LOCK_WAIT_S = 90.0


class Supervisor:
    """Keeps the promise of the `Controller` port, and offers what an update needs to replace the controller safely.

    `version()` has to run; it changes only through `commit_version`. An update takes the container with
    `exclusive("ota")`, calls `note_trial(new)` before it starts a new version, and in the end commits it, or starts
    the old one and calls `note_trial(None)`; meanwhile nothing here touches the container. A gateway killed in
    between leaves the trial noted: either version may then run, and if none does the committed one is started.
    """

    def __init__(
        self,
        *,
        runtime: ControllerRuntime,
        heartbeat: Heartbeat,
        state: State,
        report: Report,
        clock: Clock,
        versions: ControllerVersion,
        health_limit_s: float,
        start_grace_s: float,
        spread: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 - spread, not secrecy
    ) -> None:
        self.next_check = NextCheck(clock)
        self._runtime = runtime
        self._heartbeat = heartbeat
        self._state = state
        self._clock = clock
        self._teller = ControllerTeller(report, runtime, clock)
        self._versions = versions
        self._limits = {"health_limit_s": health_limit_s, "start_grace_s": start_grace_s}
        self._rights_read = False
        self._spread = spread
        self._lock = threading.Lock()
        self._holder = ""
        self._updating = False
        self._remembered: History | None = None
        self._stored: History | None = None
        self._view = View()

    # --- the Controller port -------------------------------------------------------------------------------

    def restart(self, reason: str) -> None:
        """Stop and start at once; also when it waits for its next start, or does not run at all.

        Raises:
            Refused: no version is known, or the engine refuses to start it.
            Unavailable: the engine, the image, or the container (an update holds it); nothing is remembered.
        """
        with self._exclusive(f"restart: {reason}", LOCK_WAIT_S):
            version = self._versions.trial() or self._versions.committed()
            if version is None:
                raise Refused("no controller version is known yet: assign one on the server")
            logger.info("restarting the controller: %s", reason)
            self._replace(version, self._observe())
        self.supervise()

    def running_since_ms(self) -> int | None:
        """Follows the wall clock, so that the time since then is right also after the clock was set."""
        since_s = self._view.since_s
        return None if since_s is None else round(self._clock.now_ms() - (self._clock.monotonic_s() - since_s) * 1000)

    def summary(self) -> Mapping[str, Any]:
        history = self._remembered or History()
        facts = reports.attributes(self._view, history, self.running_since_ms())
        return {**facts, "controller_last_words": list(self._teller.last_words)}

    def logs(self, lines: int) -> list[str]:
        return self._runtime.logs(lines)

    # --- for updates ---------------------------------------------------------------------------------------

    @contextmanager
    def exclusive(self, holder: str, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
        """Be the only one who starts and stops the controller; not re-entrant. Raises Unavailable after `wait_s`."""
        with self._exclusive(holder, wait_s):
            self._updating = True
            try:
                self._observe()
                yield
            finally:
                self._updating = False

    @contextmanager
    def _exclusive(self, holder: str, wait_s: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=wait_s):
            raise Unavailable(f"the controller is being worked on ({self._holder or 'supervision'}); try again later")
        self._holder = holder
        try:
            yield
        finally:
            self._holder = ""
            self._lock.release()
            self.next_check.plan_in(0)

    def version(self) -> str | None:
        """The version that has to run; None while none is known."""
        return self._versions.committed()

    def was_on_trial(self, version: str) -> bool:
        """Whether `version` was committed after a trial on this device."""
        return self._versions.was_committed(version)

    def commit_version(self, version: str) -> None:
        """`version` has to run from now on; ends a trial."""
        self._versions.commit(version)

    def note_trial(self, version: str | None) -> None:
        """`version` may run, too, until it is committed or another call says otherwise."""
        self._versions.note_trial(version)

    # --- the reconciler ------------------------------------------------------------------------------------

    def supervise(self) -> None:
        """One turn: look, decide, act, report. Does nothing while another thread holds the container.

        What the engine cannot do now is a reported condition, not an error; the next look is planned either way.

        Raises:
            Unavailable: the state or a report could not be stored; the turn itself was done.
        """
        if not self._lock.acquire(blocking=False):
            self._glance()
            return
        try:
            self.next_check.plan_in(RETRY_S)
            self._turn()
        finally:
            self._lock.release()

    def _glance(self) -> None:
        """See what an update runs just now, so that `running_since_ms` is right; its stops are not counted as exits."""
        if self._updating and (seen := self._runtime.observe()).running:
            self._account(seen)
            self._view = self._running_view(Condition.RUNNING, "an update is in progress", seen)

    def _turn(self) -> None:
        self._load()
        wanted, trial = self._versions.committed(), self._versions.trial()
        try:
            self._look_and_act(wanted, trial)
        except NameTaken as reason:
            self._show(View(Condition.NAME_TAKEN, str(reason)), RETRY_S)
        except (Unavailable, Refused) as reason:
            self._show(View(Condition.ENGINE_UNREACHABLE, str(reason)), RETRY_S)
        self._store()  # before it is told: a gateway killed here would not know this run, and not count its end
        self._remembered = self._teller.tell(self._view, self._load(), self.running_since_ms())
        self._store()

    def _look_and_act(self, wanted: str | None, trial: str | None) -> None:
        seen, decision = self._look(wanted, trial)
        obstacle = None
        if decision.action is not Action.NOTHING and wanted is not None:
            obstacle = self._act(decision, wanted, seen)
            seen, decision = self._look(wanted, trial)
        look_again_s = RETRY_S if obstacle else decision.look_again_s
        self._show(self._view_of(seen, decision, obstacle, wanted), look_again_s)

    def _observe(self) -> Observation:
        """What runs. A container of the reference gateway goes on with the rights it had: ours might not do for it.

        It cannot be known which of them it needs: all are kept, for its successors, too, until the settings name them.
        """
        seen = self._runtime.observe()
        if not self._rights_read:
            if (rights := parse_rights(self._state.get(RIGHTS_KEY))) is not None:
                self._runtime.loosen(rights)
            self._rights_read = True
        if seen.rights is not None and self._state.get(RIGHTS_KEY) is None:
            self._state.put(RIGHTS_KEY, encode_rights(seen.rights))
            self._runtime.loosen(seen.rights)
            logger.warning("the controller keeps what the previous gateway gave it: %s", describe(seen.rights))
        return seen

    def _look(self, wanted: str | None, trial: str | None) -> tuple[Observation, Decision]:
        seen = self._observe()
        if self._view.condition is Condition.ENGINE_UNREACHABLE:
            self._remembered = policy.at_once(self._load())
        history = self._account(seen)
        rules = Rules(**self._limits, profile=self._runtime.profile())
        return seen, policy.plan(self._now(), seen, history, wanted, rules, trial)

    def _account(self, seen: Observation) -> History:
        heartbeat_ms = None
        with suppress(Unavailable):  # the inbox is locked; the silence goes on being measured
            heartbeat_ms = self._heartbeat.last_heartbeat_ms()
        self._remembered = policy.account(self._now(), seen, heartbeat_ms, self._load())
        return self._remembered

    def _act(self, decision: Decision, version: str, seen: Observation) -> ImageMissing | MountRefused | None:
        """Start or restart; returns what has to come or change first. A start that fails counts as a failure."""
        logger.info("%s of controller %s: %s", decision.action.value, version, decision.reason)
        try:
            self._replace(version, seen)
        except (ImageMissing, MountRefused) as reason:
            return reason
        except NameTaken:
            raise
        except Refused as reason:
            self._remembered = policy.failed(self._now(), str(reason), None, self._load())
            self._teller.note(reports.exit_telemetry(self._remembered, ()))
        else:
            if decision.action is Action.RESTART:
                self._teller.note({"controller_restart_reason": decision.reason})
        return None

    def _replace(self, version: str, seen: Observation) -> None:
        """Never stops what cannot be started again; the stop is not counted as an exit."""
        if seen.running:
            if not (seen.runs(version) and seen.profile == self._runtime.profile()):
                self._runtime.prepare(version)
            self._runtime.stop(STOP_TIMEOUT_S)
            self._remembered = replace(self._load(), run_id=None, ended_run_id=seen.run_id, told_run_id=seen.run_id)
        self._remembered = policy.at_once(self._load())
        self._runtime.start(version)

    # --- what others see -----------------------------------------------------------------------------------

    def _view_of(
        self, seen: Observation, decision: Decision, obstacle: ImageMissing | MountRefused | None, wanted: str | None
    ) -> View:
        if seen.running:
            condition = Condition.PAUSED if seen.paused else Condition.RUNNING
            return self._running_view(condition, str(obstacle or decision.reason), seen)
        if obstacle is not None:
            refused = isinstance(obstacle, MountRefused)
            return View(Condition.MOUNT_REFUSED if refused else Condition.IMAGE_MISSING, str(obstacle))
        return View(Condition.NO_VERSION if wanted is None else Condition.WAITING, decision.reason)

    def _running_view(self, condition: Condition, reason: str, seen: Observation) -> View:
        history = self._load()
        version = seen.version or self._versions.committed()
        return View(condition, reason, version, history.run_since_s - history.run_age_ms / 1000)

    def _show(self, view: View, look_again_s: float) -> None:
        if view.condition not in (self._view.condition, Condition.WAITING):  # the exit before it was logged
            log = logger.info if view.condition is Condition.RUNNING else logger.warning
            log("controller: %s (%s)", view.condition.value, view.reason)
        self._view = view
        self.next_check.plan_in(look_again_s)

    # --- memory --------------------------------------------------------------------------------------------

    def _now(self) -> Moment:
        clock = self._clock
        return Moment(
            monotonic_s=clock.monotonic_s(), wall_ms=clock.now_ms(), boot_id=clock.boot_id(), spread=self._spread()
        )

    def _load(self) -> History:
        if self._remembered is None:
            self._remembered = self._stored = policy.parse_history(self._state.get(HISTORY_KEY))
        return self._remembered

    def _store(self) -> None:
        """A heartbeat alone is written every ten minutes, to spare the flash; the next look finds newer ones again."""
        history, stored = self._load(), self._stored or History()
        if history == stored:
            return
        fresh = (history.alive_s or 0.0) - (stored.alive_s or 0.0) < STORE_HEARTBEAT_S
        if fresh and replace(history, alive_s=stored.alive_s, heartbeat_ms=stored.heartbeat_ms) == stored:
            return
        self._state.put(HISTORY_KEY, policy.encode_history(history))
        self._stored = history


class NoController:
    """`TEG_CONTROLLER_RUNTIME=none`: the same questions, answered for nothing."""

    def supervise(self) -> None:
        return

    def restart(self, reason: str) -> None:
        raise Refused("no controller is supervised here (TEG_CONTROLLER_RUNTIME=none)")

    def running_since_ms(self) -> int | None:
        return None

    def summary(self) -> Mapping[str, Any]:
        return {"controller_state": "not supervised"}

    def logs(self, lines: int) -> list[str]:
        raise Refused("no controller is supervised here (TEG_CONTROLLER_RUNTIME=none)")


class NextCheck:
    """When to look again: one planned moment on the monotonic clock that a thread waits for and every turn plans anew.

    The first one is now.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due_s: float | None = clock.monotonic_s()

    def plan_in(self, seconds: float) -> None:
        with self._changed:
            self._due_s = self._clock.monotonic_s() + seconds
            self._changed.notify_all()

    def left_s(self) -> float | None:
        """Seconds until the planned look, at least 0; None when none is planned."""
        with self._changed:
            return self._left_s()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the planned moment and take it: True once a plan; False when it did not come in `timeout_s`."""
        end_s = self._clock.monotonic_s() + timeout_s
        with self._changed:
            while (left_s := self._left_s()) != 0:
                wait_s = end_s - self._clock.monotonic_s()
                if wait_s <= 0:
                    return False
                self._changed.wait(wait_s if left_s is None else min(wait_s, left_s))
            self._due_s = None
            return True

    def _left_s(self) -> float | None:
        return None if self._due_s is None else max(0.0, self._due_s - self._clock.monotonic_s())
