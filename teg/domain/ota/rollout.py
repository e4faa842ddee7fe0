"""The part of an update that touches the controller: replace it, try the new version, commit it or go back.

Called with the controller locked (`ControllerLock.exclusive`). Every step is persisted before it is taken; after a
crash at any point the next call goes on, and until then the supervisor runs the committed version or the one on trial.
"""

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota import job as jobs
from teg.domain.ota.job import Job, Phase, Trial
from teg.domain.ota.ports import ControllerLock
from teg.domain.ota.store import UpdateStore
from teg.domain.ports import Clock, Heartbeat
from teg.domain.supervision import ControllerRuntime, ImageMissing, Observation, exit_reason

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
class TrialView:
    """One look at the run on trial. `disturbed`: the gateway, the engine or the host went down since it began."""

    seen: Observation
    heartbeat_ms: int | None
    now_s: float
    boot_id: str
    keys: Collection[str] = ()  #: telemetry keys since the start
    disturbed: bool = False


def judge(trial: Trial, look: TrialView, version: str, trial_s: float) -> Verdict:
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


def _ended(look: TrialView, version: str) -> Verdict:
    if look.disturbed:
        return Verdict(Result.AGAIN, "the trial was interrupted")
    if look.seen.running:
        return Verdict(Result.FAILED, f"version {version} did not stay up: it was started again during its trial")
    code = "" if look.seen.exit_code is None else f" (exit code {look.seen.exit_code})"
    return Verdict(Result.FAILED, f"version {version} did not stay up: {exit_reason(look.seen)}{code}")


logger = logging.getLogger("gateway.ota")

TRIAL_LOOK_S = 1.0
#: An engine that is away longer than this during a trial loses the lock, so that its state is reported.
ENGINE_PATIENCE_S = 30.0
LAST_LINES = 15
LAST_LINES_CHARACTERS = 2_000


class TelemetryKeys(Protocol):
    """What the controller sends, by the archive."""

    def keys_between(self, start_ms: int, end_ms: int) -> Collection[str]:
        """Names of the values recorded with a time in [start_ms, end_ms); raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRules:
    trial_s: float
    #: Where to see whether the new version sends what the old one sent; None: not asked for.
    keys: TelemetryKeys | None = None


class Replacement:
    """Takes a job from REPLACING to the point where it is decided and done: COMMITTING or FAILING."""

    def __init__(
        self,
        *,
        runtime: ControllerRuntime,
        controller: ControllerLock,
        heartbeat: Heartbeat,
        records: UpdateStore,
        clock: Clock,
        rules: TrialRules,
        pause: Callable[[float], bool],
    ) -> None:
        self._runtime = runtime
        self._controller = controller
        self._heartbeat = heartbeat
        self._records = records
        self._clock = clock
        self._rules = rules
        self._pause = pause
        self._undisturbed: str | None = None  #: the run that was watched from its start, without a gap
        self._beat: tuple[int, int | None] | None = None

    def stands(self, version: str, since_ms: int | None) -> bool:
        """Whether `version`, which runs since `since_ms`, has been up for as long as a trial and given a sign of life.

        Raises:
            Unavailable: the engine or the inbox cannot be asked now.
        """
        if since_ms is None or not self._runtime.observe().runs(version):
            return False
        if self._clock.now_ms() - since_ms < self._rules.trial_s * 1000:
            return False
        beat_ms = self._heartbeat.last_heartbeat_ms()
        return beat_ms is not None and beat_ms >= since_ms

    # --- stop the old one, start the new one -------------------------------------------------------------------

    def replace(self, job: Job) -> Job:
        """One attempt; raises Unavailable when it can be repeated, Refused when it cannot."""
        if not self._runtime.has_image(job.version):
            self._controller.note_trial(None)
            return self._records.put_job(replace(job, phase=Phase.FETCHING))
        self._runtime.prepare(job.version)
        keys = job.trial.keys_before if job.trial else self._regular_keys()
        self._controller.note_trial(job.version)
        self._runtime.stop()
        job = self._records.put_job(replace(jobs.succeeded(job), trial=self._new_trial(keys)))
        self._runtime.start(job.version)
        return self._note_run(job)

    def _new_trial(self, keys: tuple[str, ...]) -> Trial:
        return Trial(
            started_ms=self._clock.now_ms(),
            started_s=self._clock.monotonic_s(),
            boot_id=self._clock.boot_id(),
            heartbeat_before_ms=self._heartbeat.last_heartbeat_ms(),
            keys_before=keys,
        )

    def _note_run(self, job: Job) -> Job:
        assert job.trial is not None
        self._undisturbed = run_id = self._runtime.observe().run_id
        return self._records.put_job(replace(job, trial=replace(job.trial, run_id=run_id)))

    def _regular_keys(self) -> tuple[str, ...]:
        """What the old version sent in each half of its last time, of twice the trial at most and of this run only."""
        seen = self._runtime.observe()
        if self._rules.keys is None or not seen.running:
            return ()
        now_ms = self._clock.now_ms()
        start_ms = max(now_ms - round(2000 * self._rules.trial_s), seen.started_ms or 0)
        middle_ms = (start_ms + now_ms) // 2
        older = self._rules.keys.keys_between(start_ms, middle_ms)
        return tuple(sorted(set(older) & set(self._rules.keys.keys_between(middle_ms, now_ms))))

    # --- try it --------------------------------------------------------------------------------------------

    def watch(self, job: Job, interrupted: Callable[[], bool]) -> Job:
        """Wait for the verdict; returns the job unchanged when `interrupted` (other wishes, or the gateway stops).

        Raises:
            Unavailable: the engine is away for longer than a moment.
        """
        if job.trial is None or (job.trial.run_id is None and not self._runtime.observe().runs(job.version)):
            return self._records.put_job(jobs.again(job))
        if job.trial.run_id is None:
            job = self._note_run(job)
        verdict = self._verdict(job)
        while verdict.result is Result.WAIT:
            if interrupted() or self._pause(TRIAL_LOOK_S):
                return job
            verdict = self._verdict(job)
        return self._records.put_job(self._decided(job, verdict))

    def _decided(self, job: Job, verdict: Verdict) -> Job:
        if verdict.result is Result.PASSED:
            return jobs.succeeded(job)
        if verdict.result is Result.AGAIN:
            job = replace(job, reason=verdict.reason)
            return jobs.ended(job) if jobs.is_exhausted(job) else jobs.again(job)
        return jobs.ended(replace(job, reason=verdict.reason + self._last_lines()))

    def _verdict(self, job: Job) -> Verdict:
        assert job.trial is not None
        trial, clock = job.trial, self._clock
        look = TrialView(
            seen=self._observe_patiently(),
            heartbeat_ms=self._newest_heartbeat(trial),
            now_s=clock.monotonic_s(),
            boot_id=clock.boot_id(),
            keys=self._keys_since(trial),
            disturbed=self._undisturbed != trial.run_id,
        )
        return judge(trial, look, job.version, self._rules.trial_s)

    def _observe_patiently(self) -> Observation:
        give_up_s = self._clock.monotonic_s() + ENGINE_PATIENCE_S
        while True:
            try:
                return self._runtime.observe()
            except Unavailable:
                self._undisturbed = None
                if self._clock.monotonic_s() >= give_up_s or self._pause(TRIAL_LOOK_S):
                    raise

    def _newest_heartbeat(self, trial: Trial) -> int | None:
        """While the inbox is locked, the one seen at an earlier look of this trial; raises Unavailable without one."""
        try:
            self._beat = (trial.started_ms, self._heartbeat.last_heartbeat_ms())
        except Unavailable:
            if self._beat is None or self._beat[0] != trial.started_ms:
                raise
        return self._beat[1]

    def _keys_since(self, trial: Trial) -> Collection[str]:
        if self._rules.keys is None or not trial.keys_before:
            return ()
        return self._rules.keys.keys_between(trial.started_ms, self._clock.now_ms() + 1)

    def _last_lines(self) -> str:
        with suppress(Unavailable, Refused):
            if text := "\n".join(self._runtime.logs(LAST_LINES))[-LAST_LINES_CHARACTERS:]:
                return f". Its last output:\n{text}"
        return ""

    # --- back ----------------------------------------------------------------------------------------------

    def roll_back(self, job: Job) -> Job:
        """The previous version runs again, or, if there is none, the new one goes on being started.

        Raises:
            Unavailable: not now; to be repeated until it is done.
        """
        if job.previous:
            try:
                self._runtime.start(job.previous)
            except ImageMissing:
                return self._stay(job, f"the image of the previous version {job.previous} is gone")
            except Refused as reason:  # the supervisor goes on trying to start it
                logger.error("version %s does not start either: %s", job.previous, reason)
            self._controller.note_trial(None)
            return self._records.put_job(jobs.succeeded(job))
        return self._stay(job, "there is no earlier version to go back to")

    def _stay(self, job: Job, why: str) -> Job:
        self._controller.commit_version(job.version)
        return self._records.put_job(jobs.succeeded(replace(job, reason=f"{job.reason} ({why}; it is kept)")))
