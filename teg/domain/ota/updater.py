"""Brings the controller to the version the server wants: one persisted step after the other.

`wanted` stores what the server says, `advance` does what follows from it until nothing is left to do now. What comes
next and how a job moves on is decided in `job`, and the container is touched in `rollout` only.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota import job as jobs
from teg.domain.ota.assignment import (
    NO_VERSION_KNOWN,
    AcceptRules,
    Assignment,
    Source,
    SwState,
    is_assigned_anew,
    parse_assignment,
    parse_version,
    relevant,
)
from teg.domain.ota.job import UNTOUCHED, Job, Move, Phase, Situation, Wanted, plan
from teg.domain.ota.package_download import CalledOff
from teg.domain.ota.ports import ControllerLock
from teg.domain.ota.rollout import Replacement
from teg.domain.ota.sources import Corrupt, SoftwareSource, clear_quietly
from teg.domain.ota.store import UpdateStore, adopted
from teg.domain.ports import Clock
from teg.domain.supervision import ControllerRuntime

logger = logging.getLogger("gateway.ota")

#: An assignment arrives as several writes on the server; what they leave after this is what is wanted.
SETTLE_S = 1.0
#: A committed version that could not be obtained again is asked for again after this.
RESTORE_AGAIN_MS = 15 * 60_000


class NoUpdates:
    """`TEG_CONTROLLER_RUNTIME=none`: whatever the server wants, there is no controller here to change."""

    def wanted(self, shared: Mapping[str, Any]) -> None: ...

    def pushed(self, keys: Collection[str]) -> None: ...

    def advance(self) -> None: ...


class SoftwareUpdate:
    """The state machine. `advance` is called by one worker at a time; everything else from any thread."""

    def __init__(
        self,
        *,
        records: UpdateStore,
        replacement: Replacement,
        sources: Mapping[Source, SoftwareSource],
        runtime: ControllerRuntime,
        controller: ControllerLock,
        clock: Clock,
        rules: AcceptRules,
        settle_s: float = SETTLE_S,
        stopping: threading.Event,
        wake: Callable[[], object],
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self._records = records
        self._replacement = replacement
        self._sources = sources
        self._runtime = runtime
        self._controller = controller
        self._clock = clock
        self._rules = rules
        self._settle_s = settle_s
        self._stopping = stopping
        self._wake = wake
        self._pause = pause or stopping.wait
        self._writing = threading.Lock()
        self._moves: dict[Move, Callable[[Situation, Job | None], None]] = {
            Move.CONTINUE: self._continue,
            Move.ADOPT: self._adopt,
            Move.CALL_OFF: self._call_off,
            Move.TURN_BACK: self._turn_back,
            Move.BEGIN: self._begin,
            Move.RESTORE: self._begin,
            Move.REMEMBER: self._remember,
            Move.REFUSE: self._refuse,
            Move.RELEASE: self._release,
        }

    # --- what the server says --------------------------------------------------------------------------------

    def wanted(self, shared: Mapping[str, Any]) -> None:
        """Store the `sw_*`/`sf_*` attributes as the server has them now; none of them: un-assigned. Then advance."""
        attributes = relevant(shared)
        with self._writing:
            known = self._records.wanted()
            if known.serial == 0 or known.anew or attributes != known.attributes:
                self._records.put_wanted(Wanted(known.serial + 1, attributes, self._clock.now_ms()))
        self._wake()

    def pushed(self, keys: Collection[str]) -> None:
        """Shared attributes were changed or deleted; if the version is among them, it was assigned anew.

        The attributes themselves do not tell: un-assigned and assigned again they are as before. What was pushed is
        only a hint, so it takes effect with the answer that is read next, in `wanted`.
        """
        if is_assigned_anew(keys):
            with self._writing:
                self._records.put_wanted(replace(self._records.wanted(), anew=True))

    # --- one step after the other ------------------------------------------------------------------------------

    def advance(self) -> None:
        """Do what is to be done now; minutes. Harmless when nothing is.

        Raises:
            Unavailable: the rest can only be done later.
        """
        while not self._stopping.is_set():
            self._let_settle()
            situation = self._situation()
            move = plan(situation)
            if move is Move.REST:
                self._records.correct()
                return
            logger.debug("update: %s", move.value)
            self._moves[move](situation, situation.job)

    def _let_settle(self) -> None:
        wanted = self._records.wanted()
        age_s = (self._clock.now_ms() - wanted.changed_ms) / 1000
        if 0 <= age_s < self._settle_s:
            self._pause(self._settle_s - age_s)

    def _situation(self) -> Situation:
        wanted, settled, job = self._records.wanted(), self._records.settled(), self._records.job()
        target, refusal = self._target(wanted)
        committed = self._controller.version()
        missing = job is None and committed is not None and not self._runtime.has_image(committed)
        return Situation(
            serial=wanted.serial,
            settled=settled.serial,
            target=target,
            refusal=refusal,
            job=job,
            committed=committed,
            missing=missing,
            restore_due=self._is_due(settled.restore_failed_ms),
        )

    def _target(self, wanted: Wanted) -> tuple[Assignment | None, str]:
        if wanted.attributes is None:
            return None, ""
        try:
            target = parse_assignment(wanted.attributes, self._rules)
        except Refused as reason:
            return None, str(reason)
        if self._records.conflict(target) and target.version in (self._controller.version(), self._records.previous()):
            return None, (
                f"version {target.version} is installed with other content: give changed software a new version"
            )
        return target, ""

    def _is_due(self, failed_ms: int | None) -> bool:
        return failed_ms is None or not 0 <= self._clock.now_ms() - failed_ms < RESTORE_AGAIN_MS

    # --- without a job -----------------------------------------------------------------------------------------

    def _begin(self, now: Situation, _: Job | None) -> None:
        restoring = now.serial == now.settled
        assignment = self._committed_assignment(now) if restoring else now.target
        if assignment is None:
            self._records.settle(now.serial, failed=True, restore_failed_ms=self._clock.now_ms())
            return
        kept = self._runtime.has_image(assignment.version) and self._is_good(assignment)
        job = jobs.begin(now.serial, assignment, self._fallback(now, assignment.version), kept)
        self._records.put_title(assignment)
        self._records.put_job(replace(job, commit=self._records.pinned_commit(job.version)))
        logger.info("update to version %s from %s begins", assignment.version, assignment.source.value)

    def _is_good(self, assignment: Assignment) -> bool:
        """Whether the image that is kept under this version is the assigned content, signed where that is required."""
        unsigned = self._rules.signed_only and not self._records.is_signed(assignment.version)
        return not unsigned and not self._records.conflict(assignment)

    def _committed_assignment(self, now: Situation) -> Assignment | None:
        """How to obtain the version that has to run: as it is assigned, else from Git, where versions stay."""
        if now.target is not None and now.target.version == now.committed:
            return now.target
        try:
            version = parse_version(now.committed)
        except Refused as reason:
            self._records.tell(now.serial, SwState.FAILED, str(reason))
            return None
        return Assignment(version=version, title=version, source=Source.GIT)

    def _fallback(self, now: Situation, version: str) -> str:
        return "" if now.committed is None or now.missing or now.committed == version else now.committed

    def _remember(self, now: Situation, _: Job | None) -> None:
        """It is said to be updated once it runs, and where it was never on trial, once it has stood for as long.

        Raises:
            Unavailable: not yet.
        """
        assert now.target is not None
        self._records.put_title(now.target)
        if not self._has_proven_itself(now.target.version):
            raise Unavailable(f"version {now.target.version} has to run, and does not, or not for long enough yet")
        self._records.tell(now.serial, SwState.UPDATED)
        self._records.settle(now.serial)

    def _has_proven_itself(self, version: str) -> bool:
        if self._controller.was_on_trial(version):
            return self._runtime.observe().runs(version)
        return self._replacement.stands(version, self._controller.running_since_ms())

    def _refuse(self, now: Situation, _: Job | None) -> None:
        logger.warning("update refused: %s", now.refusal)
        self._records.tell(now.serial, SwState.FAILED, now.refusal)
        self._records.settle(now.serial, failed=True)

    def _release(self, now: Situation, _: Job | None) -> None:
        if now.committed is None:
            self._records.tell(now.serial, SwState.FAILED, NO_VERSION_KNOWN)
        self._records.settle(now.serial)

    # --- with a job --------------------------------------------------------------------------------------------

    def _adopt(self, _: Situation, job: Job | None) -> None:
        assert job is not None
        self._records.put_job(adopted(job, self._records.wanted()))

    def _call_off(self, now: Situation, job: Job | None) -> None:
        assert job is not None
        logger.info("update to version %s is called off: it is not wanted any more", job.version)
        clear_quietly(self._sources[job.assignment.source])
        goes_on = now.target is None and not now.refusal and now.committed is not None
        if goes_on and self._has_proven_itself(now.committed or ""):
            self._records.tell(now.serial, SwState.UPDATED)
        self._records.end_job()

    def _turn_back(self, _: Situation, job: Job | None) -> None:
        assert job is not None
        reason = f"version {job.version} was called off: version {job.previous} is wanted again"
        self._records.put_job(jobs.ended(replace(job, reason=reason)))

    def _continue(self, _: Situation, job: Job | None) -> None:
        assert job is not None
        self._records.tell_phase(job)
        if left_ms := jobs.wait_ms(job, self._clock.now_ms()):
            raise Unavailable(f"update to version {job.version} goes on in {left_ms / 1000:.0f} s: {job.reason}")
        if job.phase in UNTOUCHED:
            self._prepare(job)
        elif job.phase is Phase.FAILING:
            self._finish_failed(job)
        else:
            with self._controller.exclusive(f"update to version {job.version}"):
                self._replace(job)

    def _prepare(self, job: Job) -> None:
        if jobs.is_exhausted(job):
            self._give_up(job)
            return
        source, begun = self._sources[job.assignment.source], job
        try:
            begun = self._records.put_job(jobs.attempted(job, source.held_bytes(job)))
            done = self._work(source, begun)
        except CalledOff:
            self._records.put_job(job)  # the stop of the gateway is no attempt, and what is not wanted has none left
        except Corrupt as reason:
            self._failed(replace(begun, phase=Phase.FETCHING, resumed=False, held_bytes=0), str(reason), can_pass=True)
        except Unavailable as reason:
            self._records.put_job(job) if self._stopping.is_set() else self._failed(begun, str(reason), can_pass=True)
        except Refused as reason:
            self._failed(begun, str(reason), can_pass=False)
        else:
            self._records.put_content(done)
            if job.phase is Phase.VERIFYING and self._rules.signed_only:
                self._records.put_signed(done)
            self._records.put_job(jobs.succeeded(done))

    def _work(self, source: SoftwareSource, job: Job) -> Job:
        cancelled = lambda: self._is_cancelled(job)  # noqa: E731
        if job.phase is Phase.FETCHING:
            return source.fetch(job, cancelled)
        if job.phase is Phase.VERIFYING:
            source.verify(job)
        else:
            source.install(job, cancelled)
        return job

    def _is_cancelled(self, job: Job) -> bool:
        if self._stopping.is_set():
            return True
        wanted = self._records.wanted()
        return wanted.serial != job.serial and self._target(wanted)[0] != job.assignment

    def _failed(self, job: Job, reason: str, *, can_pass: bool) -> Job:
        logger.warning("update to version %s, %s: %s", job.version, job.phase.value, reason)
        return self._records.put_job(jobs.failed(job, reason, can_pass=can_pass, now_ms=self._clock.now_ms()))

    def _give_up(self, job: Job) -> Job:
        reason = f"given up after {job.attempt} attempts: {job.reason or 'the gateway was interrupted each time'}"
        return self._records.put_job(jobs.ended(replace(job, reason=reason)))

    # --- with the controller locked -------------------------------------------------------------------------------

    def _replace(self, job: Job) -> None:
        """Until it is decided, done and reported, or interrupted; the lock is not let go in between."""
        if job.phase is Phase.REPLACING:
            job = self._start_new(job)
        if job.phase is Phase.TRIAL:
            job = self._replacement.watch(job, self._is_turned_back)
        if job.phase is Phase.ROLLING_BACK:
            job = self._replacement.roll_back(job)
        if job.phase is Phase.COMMITTING:
            self._commit(job)
        elif job.phase is Phase.FAILING:
            self._finish_failed(job)

    def _start_new(self, job: Job) -> Job:
        """Of what can pass, the next attempt comes later: meanwhile the supervisor runs the committed version."""
        if jobs.is_exhausted(job):
            return self._give_up(job)
        begun = self._records.put_job(jobs.attempted(job))
        try:
            return self._replacement.replace(begun)
        except Unavailable as reason:
            return self._failed(begun, str(reason), can_pass=True)
        except Refused as reason:
            return self._failed(begun, str(reason), can_pass=False)

    def _is_turned_back(self) -> bool:
        return self._stopping.is_set() or plan(self._situation()) is Move.TURN_BACK

    def _commit(self, job: Job) -> None:
        self._controller.commit_version(job.version)
        if job.previous:
            self._records.put_previous(job.previous)
        self._records.tell(job.serial, SwState.UPDATED)
        settled = self._records.settled()  # a version obtained again says nothing about the assigned one
        self._end(job, failed=settled.failed and settled.serial == job.serial)
        logger.info("update to version %s is done", job.version)

    def _finish_failed(self, job: Job) -> None:
        logger.error("update to version %s failed: %s", job.version, job.reason)
        self._records.tell(job.serial, SwState.FAILED, job.reason)
        self._end(job, failed=True)

    def _end(self, job: Job, *, failed: bool) -> None:
        clear_quietly(self._sources[job.assignment.source])
        with suppress(Unavailable, Refused):  # space is made at the next update then
            keep = [self._controller.version() or job.version, self._records.previous()]
            self._runtime.remove_old_images(keep, self._clock.now_ms())
        restoring = job.phase is Phase.FAILING and job.previous == "" and job.version == self._controller.version()
        self._records.settle(job.serial, failed=failed, restore_failed_ms=self._clock.now_ms() if restoring else None)
        self._records.end_job()
