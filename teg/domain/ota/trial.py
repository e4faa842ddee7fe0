"""Whether a new controller version has proven itself: a pure verdict over what was seen of its run."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from teg.domain.ota.job import Trial
from teg.domain.supervision.policy import exit_reason
from teg.domain.supervision.runtime import Observation

#: Longest list of missing telemetry keys in a reason.
_KEYS_SHOWN = 10


class Result(StrEnum):
    WAIT = "wait"
    PASSED = "passed"
    FAILED = "failed"
    AGAIN = "again"  #: something else ended the run: it says nothing about the version


@dataclass(frozen=True, slots=True)
class Verdict:
    result: Result
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at the run on trial. `disturbed`: the gateway, the engine or the host went down since it began."""

    seen: Observation
    heartbeat_ms: int | None
    now_s: float
    boot_id: str
    keys: Collection[str] = ()  #: telemetry keys since the start
    disturbed: bool = False


def judge(trial: Trial, look: Look, version: str, trial_s: float) -> Verdict:
    """Committed only after `trial_s` of one and the same run, with a heartbeat and the keys the old one sent.

    The heartbeat counts as new when it differs from the one left behind by the old controller: clocks that jump
    (no RTC) can then neither fake nor hide it.
    """
    if not (look.seen.runs(version) and look.seen.run_id == trial.run_id):
        return _ended(look, version)
    if look.boot_id != trial.boot_id:
        return Verdict(Result.AGAIN, "the device was started anew")
    if look.now_s - trial.started_s < trial_s:
        return Verdict(Result.WAIT)
    if look.heartbeat_ms is None or look.heartbeat_ms == trial.heartbeat_before_ms:
        return Verdict(Result.FAILED, f"version {version} sent no heartbeat within {trial_s:g} s")
    if missing := [key for key in trial.keys_before if key not in look.keys]:
        names = ", ".join(missing[:_KEYS_SHOWN]) + (" …" if len(missing) > _KEYS_SHOWN else "")
        return Verdict(Result.FAILED, f"version {version} no longer sends {names}")
    return Verdict(Result.PASSED)


def _ended(look: Look, version: str) -> Verdict:
    if look.disturbed:
        return Verdict(Result.AGAIN, "the trial was interrupted")
    if look.seen.running:
        return Verdict(Result.FAILED, f"version {version} did not stay up: it was started again during its trial")
    code = "" if look.seen.exit_code is None else f" (exit code {look.seen.exit_code})"
    return Verdict(Result.FAILED, f"version {version} did not stay up: {exit_reason(look.seen)}{code}")
