"""What an update has to do next: a pure decision over what is wanted, what is in progress, and what runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from teg.domain.ota.assignment import Assignment
from teg.domain.ota.job import Job, Phase


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the server says, as it was stored; `serial` grows whenever that changes or is assigned anew."""

    serial: int = 0
    attributes: Mapping[str, Any] | None = None
    changed_ms: int = 0
    anew: bool = False  #: the operator's hand was seen on the version since it was last read


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
