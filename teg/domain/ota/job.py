"""One update from assignment to its end, as it is persisted, and how it moves on: pure functions over frozen records.

Phases and what follows (each is written to `State` before it is acted on, and doing it twice is harmless):

    FETCHING → VERIFYING → INSTALLING → REPLACING → TRIAL → COMMITTING → (UPDATED)
        └────────────┴──────────┴→ FAILING            └──────┴→ ROLLING_BACK → FAILING → (FAILED)

Only TRIAL leads to COMMITTING. Up to INSTALLING the running controller is not touched.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from teg.domain.backoff import Backoff
from teg.domain.ota.assignment import Assignment, SwState
from teg.domain.server import encodable

MAX_ATTEMPTS = 3
RETRY = Backoff(first_s=10, cap_s=900, factor=3)
#: A planned retry further ahead than this was planned by another clock.
MAX_WAIT_MS = 2 * 900_000


class Phase(StrEnum):
    FETCHING = "fetching"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    REPLACING = "replacing"
    TRIAL = "trial"
    COMMITTING = "committing"
    ROLLING_BACK = "rolling back"
    FAILING = "failing"


#: What `sw_state` says on entering a phase; the ends (UPDATED, FAILED) are reported when they are true.
SW_STATES = {
    Phase.FETCHING: SwState.DOWNLOADING,
    Phase.VERIFYING: SwState.DOWNLOADED,
    Phase.INSTALLING: SwState.VERIFIED,
    Phase.REPLACING: SwState.UPDATING,
    Phase.TRIAL: SwState.UPDATING,
    Phase.COMMITTING: SwState.UPDATING,
    Phase.ROLLING_BACK: SwState.UPDATING,
    Phase.FAILING: SwState.FAILED,
}
#: The running controller is still the old one.
UNTOUCHED = (Phase.FETCHING, Phase.VERIFYING, Phase.INSTALLING)

_AFTER_SUCCESS = {
    Phase.FETCHING: Phase.VERIFYING,
    Phase.VERIFYING: Phase.INSTALLING,
    Phase.INSTALLING: Phase.REPLACING,
    Phase.REPLACING: Phase.TRIAL,
    Phase.TRIAL: Phase.COMMITTING,
    Phase.ROLLING_BACK: Phase.FAILING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the new controller is measured against. `started_s` is monotonic, valid within `boot_id`."""

    started_ms: int
    started_s: float
    boot_id: str
    heartbeat_before_ms: int | None  #: read after the old controller had stopped
    keys_before: tuple[str, ...] = ()  #: telemetry keys that the old one sent regularly
    run_id: str | None = None  #: the run on trial, known once it was started


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The update in progress. `previous` is the version to go back to, empty if there is none."""

    serial: int  #: of the assignment it serves
    assignment: Assignment
    phase: Phase
    previous: str = ""
    commit: str = ""  #: Git: what the tag was resolved to, once
    attempt: int = 0  #: runs that were begun and did not succeed
    retry_at_ms: int = 0
    held_bytes: int = 0  #: package: on disk when the last attempt began
    resumed: bool = False  #: package: not downloaded in one go
    reason: str = ""  #: why the last attempt, or the whole update, failed
    trial: Trial | None = None

    @property
    def version(self) -> str:
        return self.assignment.version

    @property
    def untouched(self) -> bool:
        """Whether the controller that ran before still runs: the update can be dropped without a trace."""
        return self.phase in UNTOUCHED or (self.phase is Phase.REPLACING and self.attempt == 0)

    def encode(self) -> dict[str, Any]:
        return asdict(replace(self, reason=encodable(self.reason)))

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> "Job":
        trial = stored.get("trial")
        return cls(
            **{
                **stored,
                "assignment": Assignment.parse(stored["assignment"]),
                "phase": Phase(stored["phase"]),
                "trial": Trial(**{**trial, "keys_before": tuple(trial["keys_before"])}) if trial else None,
            }
        )


def begin(serial: int, assignment: Assignment, previous: str, kept_image: bool) -> Job:
    """A new update; one whose image is kept on the device needs neither network nor build."""
    phase = Phase.REPLACING if kept_image else Phase.FETCHING
    return Job(serial=serial, assignment=assignment, phase=phase, previous=previous)


def attempted(job: Job, held_bytes: int = 0) -> Job:
    """Counted before the work begins, so that work which kills the gateway is not begun for ever.

    An interrupted download that has grown since the last attempt starts counting anew: its size bounds it.
    """
    if job.phase is not Phase.FETCHING:
        return replace(job, attempt=job.attempt + 1, retry_at_ms=0)
    return replace(
        job,
        attempt=1 if held_bytes > job.held_bytes else job.attempt + 1,
        held_bytes=max(held_bytes, job.held_bytes),
        resumed=job.resumed or held_bytes > 0,
        retry_at_ms=0,
    )


def succeeded(job: Job) -> Job:
    """The next phase. What succeeded does not count as an attempt; starts of the new version are counted apart."""
    following = _AFTER_SUCCESS[job.phase]
    attempt = max(0, job.attempt - 1) if following in UNTOUCHED else 0
    return replace(job, phase=following, attempt=job.attempt if following is Phase.TRIAL else attempt, retry_at_ms=0)


def failed(job: Job, reason: str, *, can_pass: bool, now_ms: int) -> Job:
    """The same phase again later, or the way to the end.

    With nothing to go back to, an update that has touched nothing yet is tried for ever: the device has no controller.
    """
    job = replace(job, reason=reason)
    if can_pass and not is_exhausted(job):
        wait_ms = round(RETRY.nominal_s(job.attempt - 1) * 1000)
        return replace(job, retry_at_ms=now_ms + wait_ms)
    if can_pass and job.attempt > 1:
        job = replace(job, reason=f"given up after {job.attempt} attempts: {reason}")
    return ended(job)


def ended(job: Job) -> Job:
    """Not to be tried further: back to the previous version if the controller was touched."""
    phase = Phase.FAILING if job.untouched else Phase.ROLLING_BACK
    return replace(job, phase=phase, attempt=0, retry_at_ms=0)


def is_exhausted(job: Job) -> bool:
    return job.attempt >= MAX_ATTEMPTS and not (job.phase in UNTOUCHED and job.previous == "")


def again(job: Job) -> Job:
    """Stop, start and try the new version once more: its run was ended by something else (boot, engine, gateway).

    The old trial stays in the record for what it knows of the old version.
    """
    return replace(job, phase=Phase.REPLACING)


def wait_ms(job: Job, now_ms: int) -> int:
    """How long to the planned retry; a clock that jumped back does not make it longer."""
    left_ms = job.retry_at_ms - now_ms
    return left_ms if 0 < left_ms <= MAX_WAIT_MS else 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the server says, as it was stored; `serial` grows whenever that changes or is assigned anew."""

    serial: int = 0
    attributes: Mapping[str, Any] | None = None
    changed_ms: int = 0
    anew: bool = False  #: the operator chose the version anew since it was last read


@dataclass(frozen=True, slots=True)
class Settled:
    """The assignment that was brought to its end last."""

    serial: int = 0
    failed: bool = False
    restore_failed_ms: int | None = None  #: when the committed version could not be obtained again


class Move(StrEnum):
    REST = "rest"
    CONTINUE = "continue"  #: go on with the update in progress
    ADOPT = "adopt"  #: assigned once more while in progress: the same update serves
    CALL_OFF = "call off"  #: not wanted any more, and nothing was touched yet
    TURN_BACK = "turn back"  #: the version it replaces is wanted again
    BEGIN = "begin"
    RESTORE = "restore"  #: the version that has to run is not on this device
    REMEMBER = "remember"  #: the wanted version runs already
    REFUSE = "refuse"
    RELEASE = "release"  #: nothing is assigned


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything `plan` looks at. Of `target` and `refusal` at most one is set: what the server wants, or why not."""

    serial: int
    settled: int
    target: Assignment | None = None
    refusal: str = ""
    job: Job | None = None
    committed: str | None = None  #: the version that has to run
    missing: bool = False  #: its image is not on this device
    restore_due: bool = True


def plan(now: Situation) -> Move:
    """The last wanted version wins; nothing is restarted that nobody asked for."""
    if now.job is not None:
        return _plan_job(now, now.job)
    if now.serial == now.settled:
        return Move.RESTORE if now.missing and now.restore_due else Move.REST
    if now.refusal:
        return Move.REFUSE
    if now.target is None:
        return Move.RELEASE
    if now.target.version == now.committed and not now.missing:
        return Move.REMEMBER
    return Move.BEGIN


def _plan_job(now: Situation, job: Job) -> Move:
    if job.serial == now.serial:
        return Move.CONTINUE
    if now.target == job.assignment:
        return Move.ADOPT
    if job.untouched:
        return Move.CALL_OFF
    if _wants_previous(now, job):
        return Move.TURN_BACK
    return Move.CONTINUE


def _wants_previous(now: Situation, job: Job) -> bool:
    """A trial is decided before a newer version is looked at; only the way back needs no verdict."""
    if job.phase not in (Phase.REPLACING, Phase.TRIAL) or now.target is None:
        return False
    return job.previous == now.target.version
