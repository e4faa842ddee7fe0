"""What to do about the controller: pure decisions over what was seen, what is remembered, and the time.

`account` folds one look into the history, `plan` says what follows. Spans are measured on the monotonic clock and are
only compared within one boot, so a wall clock that jumps (no RTC) neither triggers nor hides anything.
"""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from teg.domain.backoff import Backoff
from teg.domain.supervision.runtime import Observation

#: The first restart after an exit comes within this; the next ones after 10 s, 20 s, … 15 min.
FIRST_RESTART_S = 4.0
NEXT_RESTARTS = Backoff(first_s=10, cap_s=900)
#: A run this long clears the failures counted before it.
STABLE_S = 600.0
#: `docker pause` is somebody's doing; this long after it the controller is started anew (it may hold the inbox lock).
PAUSED_LIMIT_S = 900.0
#: Look again after this at the latest, whatever the engine's events say.
SLOW_LOOK_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One reading of the clocks, and the share (0.5–1) of a nominal wait that is taken this time."""

    monotonic_s: float
    wall_ms: int
    boot_id: str
    spread: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """From the settings; `profile` is the fingerprint a running container must have."""

    health_limit_s: float
    start_grace_s: float
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What is remembered between looks and over restarts of the gateway. `_s` is monotonic, valid within `boot_id`."""

    boot_id: str = ""
    run_id: str | None = None  #: the run that was alive at the last look
    run_since_s: float = 0.0  #: when it was first seen
    run_age_ms: int = 0  #: how long it had been running then, as far as can be told
    runs: int = 0  #: runs seen so far, over everything
    heartbeat_ms: int | None = None
    alive_s: float | None = None  #: when `heartbeat_ms` last changed during this run
    paused_since_s: float | None = None
    failures: int = 0  #: exits and failed starts since the last stable run
    due_s: float | None = None  #: no start before this; None: at once
    ended_run_id: str | None = None  #: the last exit that was counted
    told_run_id: str | None = None  #: the last exit that was reported
    exit_code: int | None = None
    exit_reason: str = ""
    exit_ms: int | None = None

    @property
    def restarts(self) -> int:
        return max(0, self.runs - 1)


class Action(StrEnum):
    NOTHING = "nothing"
    START = "start"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, why (for the operator; without numbers that change by the second), and when to look again."""

    action: Action
    reason: str
    look_again_s: float = SLOW_LOOK_S


def account(now: Moment, seen: Observation, heartbeat_ms: int | None, history: History) -> History:
    """`history` with this look in it: a new run, a heartbeat, an exit. Looking twice counts nothing twice.

    `heartbeat_ms` is None before the first heartbeat and while the inbox cannot be read.
    """
    if history.boot_id != now.boot_id:
        history = _booted(now, seen, history)
    if seen.running:
        if seen.run_id != history.run_id:
            history = _run_began(now, seen, heartbeat_ms, history)
        return _run_goes_on(now, seen, heartbeat_ms, history)
    if _exit_is_new(seen, history):
        return _run_ended(now, seen, history)
    return history


def _booted(now: Moment, seen: Observation, history: History) -> History:
    """The boot ended the run, not the controller: nothing is counted, and it starts at once."""
    return replace(
        history,
        boot_id=now.boot_id,
        run_id=None,
        alive_s=None,
        paused_since_s=None,
        due_s=None,
        ended_run_id=None if seen.running else seen.run_id,
        told_run_id=None if seen.running else seen.run_id,
    )


def _run_began(now: Moment, seen: Observation, heartbeat_ms: int | None, history: History) -> History:
    return replace(
        history,
        run_id=seen.run_id,
        run_since_s=now.monotonic_s,
        run_age_ms=_plausible_age_ms(now, seen),
        runs=history.runs + 1,
        heartbeat_ms=heartbeat_ms if heartbeat_ms is not None else history.heartbeat_ms,
        alive_s=None,
        paused_since_s=None,
        due_s=None,
    )


def _plausible_age_ms(now: Moment, seen: Observation) -> int:
    """Nothing runs longer than the boot; what says so was stamped by a clock that has jumped since."""
    age_ms = now.wall_ms - seen.started_ms if seen.started_ms is not None else 0
    return age_ms if 0 <= age_ms <= now.monotonic_s * 1000 else 0


def _run_goes_on(now: Moment, seen: Observation, heartbeat_ms: int | None, history: History) -> History:
    if heartbeat_ms is not None and heartbeat_ms != history.heartbeat_ms:
        history = replace(history, heartbeat_ms=heartbeat_ms, alive_s=now.monotonic_s)
    if seen.paused != (history.paused_since_s is not None):
        history = replace(history, paused_since_s=now.monotonic_s if seen.paused else None)
    if history.failures and _was_stable(now, history):
        history = replace(history, failures=0)
    return history


def _exit_is_new(seen: Observation, history: History) -> bool:
    if not seen.exists:
        return history.run_id is not None
    return seen.started_ms is not None and seen.run_id != history.ended_run_id


def _run_ended(now: Moment, seen: Observation, history: History) -> History:
    failures = 0 if _was_stable(now, history) else history.failures
    run_id = seen.run_id if seen.exists else history.run_id
    history = replace(history, run_id=None, alive_s=None, paused_since_s=None, ended_run_id=run_id, failures=failures)
    return failed(now, exit_reason(seen), seen.exit_code if seen.exists else None, history)


def _was_stable(now: Moment, history: History) -> bool:
    return history.run_id is not None and now.monotonic_s - history.run_since_s >= STABLE_S


def failed(now: Moment, reason: str, exit_code: int | None, history: History) -> History:
    """One more failure, and the wait that follows it."""
    failures = history.failures + 1
    due_s = now.monotonic_s + restart_wait_s(failures, now.spread)
    return replace(
        history, failures=failures, due_s=due_s, exit_code=exit_code, exit_reason=reason, exit_ms=now.wall_ms
    )


def restart_wait_s(failures: int, spread: float = 1.0) -> float:
    """The wait before the start that follows failure number `failures` (1 = the first)."""
    nominal_s = FIRST_RESTART_S if failures <= 1 else NEXT_RESTARTS.nominal_s(failures - 2)
    return nominal_s * spread


def exit_reason(seen: Observation) -> str:
    if not seen.exists:
        return "its container was removed"
    if seen.oom_killed:
        return "it was killed: out of memory"
    if seen.error:
        return seen.error
    return {None: "it ended", 0: "it ended by itself", 137: "it was killed", 143: "it was stopped"}.get(
        seen.exit_code, "it crashed"
    )


def at_once(history: History) -> History:
    """Wait no longer: the engine is back, or a restart was asked for."""
    return replace(history, due_s=None)


def plan(
    now: Moment, seen: Observation, history: History, wanted: str | None, rules: Rules, trial: str | None = None
) -> Decision:
    """What to do now. `trial` is a version that an update is trying out: it may run, too.

    `history` is what `account` made of the same look.
    """
    if wanted is None:
        return Decision(Action.NOTHING, "no controller version is known yet: assign one on the server")
    if not seen.running:
        return _plan_start(now, history)
    if not (seen.runs(wanted) or (trial is not None and seen.runs(trial))):
        return Decision(Action.RESTART, f"it runs version {seen.version or seen.image}, {wanted} is wanted")
    if seen.profile is None:
        return Decision(Action.RESTART, "taken over from the previous gateway")
    if seen.profile != rules.profile:
        return Decision(Action.RESTART, "the settings of its container changed")
    return _plan_running(now, history, rules)


def _plan_start(now: Moment, history: History) -> Decision:
    wait_s = 0.0 if history.due_s is None else history.due_s - now.monotonic_s
    if wait_s > 0:
        return Decision(Action.NOTHING, f"starts again soon: {history.exit_reason}", min(wait_s, SLOW_LOOK_S))
    return Decision(Action.START, history.exit_reason if history.failures else "it is not running")


def _plan_running(now: Moment, history: History, rules: Rules) -> Decision:
    silent_s = now.monotonic_s - (history.run_since_s if history.alive_s is None else history.alive_s)
    limit_s = max(rules.health_limit_s, rules.start_grace_s if history.alive_s is None else 0.0)
    left_s = limit_s - silent_s
    if left_s <= 0:
        return Decision(Action.RESTART, f"no heartbeat for {_span(limit_s)}")
    if history.paused_since_s is None:
        return Decision(Action.NOTHING, "running", min(left_s, SLOW_LOOK_S))
    left_s = min(left_s, history.paused_since_s + PAUSED_LIMIT_S - now.monotonic_s)
    if left_s <= 0:
        return Decision(Action.RESTART, f"paused for {_span(PAUSED_LIMIT_S)}")
    return Decision(Action.NOTHING, "paused", min(left_s, SLOW_LOOK_S))


def _span(seconds: float) -> str:
    for name, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:g} s"


def encode_history(history: History) -> dict[str, Any]:
    return {field.name: getattr(history, field.name) for field in fields(history)}


def parse_history(stored: Any) -> History:
    """The stored history; what another version or a hand wrote there is left out field by field, never an error."""
    if not isinstance(stored, dict):
        return History()
    values: dict[str, Any] = {
        field.name: stored[field.name]
        for field in fields(History)
        if field.name in stored and _fits(field.name, field.default, stored[field.name])
    }
    return History(**values)


def _fits(name: str, default: object, value: object) -> bool:
    if value is None:
        return default is None
    if name.endswith("_s"):
        return type(value) in (int, float)
    if name.endswith("_ms") or name in ("runs", "failures", "exit_code"):
        return type(value) is int
    return type(value) is str
