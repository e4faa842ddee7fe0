"""Keeps the promise of `confirm_s`: begins a trial before a write, confirms it, or puts the old bytes back."""

import logging
from dataclasses import replace

from teg.domain.errors import Refused, Unavailable
from teg.domain.files.definitions import Definition
from teg.domain.files.desired import Content
from teg.domain.files.memory import Failures, Remembered, Restarts
from teg.domain.files.ports import FileStore
from teg.domain.files.reports import CONFIRM, sayable
from teg.domain.files.trial import FileTrial, FileTrials, TrialOutcome, next_look_s, plan_trial, wants_answer
from teg.domain.ports import Clock, Heartbeat, Report, State

logger = logging.getLogger("gateway.files")


class Confirmation:
    """All trials of this device. `answered_s` is when the newest answered request to the server was begun."""

    def __init__(
        self,
        *,
        state: State,
        store: FileStore,
        report: Report,
        clock: Clock,
        heartbeat: Heartbeat,
        restarts: Restarts,
        applied: Remembered,
    ) -> None:
        self._store = store
        self._report = report
        self._clock = clock
        self._heartbeat = heartbeat
        self._restarts = restarts
        self._applied = applied
        self._trials = FileTrials(state)
        self._failures = Failures()
        self.refused = Remembered(state, "files/refused")
        self.answered_s = float("-inf")

    def load(self) -> None:
        """Take up the trials of an earlier process, or of an earlier boot."""
        self.refused.load()
        self._trials.load(self._clock.monotonic_s(), self._clock.boot_id())
        for trial in self._trials.running():
            self._recover(trial)

    def get(self, key: str) -> FileTrial | None:
        return self._trials.get(key)

    def running(self) -> list[FileTrial]:
        return self._trials.running()

    def answered(self, begun_s: float) -> None:
        self.answered_s = max(self.answered_s, begun_s)

    def wants_answer(self) -> bool:
        """True while a trial waits for a round trip that began in the second half of its time."""
        now_s = self._clock.monotonic_s()
        return any(wants_answer(trial, now_s, self.answered_s) for trial in self.running())

    def next_look_s(self) -> float:
        now_s = self._clock.monotonic_s()
        looks = [next_look_s(trial, now_s) for trial in self.running()]
        return min([max(now_s + 1, self._failures.next_s()), *looks])

    # --- around a write ------------------------------------------------------------------------------------

    def begin(self, definition: Definition, content: Content) -> None:
        """Called before new bytes are written: begin a trial when one is asked for and not pointless.

        Raises:
            Refused: what is there now is too large to be kept.
            Unavailable: the key is on trial at another path.
        """
        running = self._trials.get(definition.key)
        if running and running.path != definition.path:
            raise Unavailable(f"still on trial as {running.path}")
        if definition.confirm_s is None or (running and self._is_what_was_there(running, content)):
            return
        trial = self._trial(definition, content, definition.confirm_s)
        self._trials.begin(trial, self._store.look(definition.path))

    def take_back(self, key: str, before: FileTrial | None) -> None:
        """The write did not happen: go on with the trial that was there before."""
        if before is not None:
            self._trials.put(before)
        elif self._trials.get(key):
            self._trials.end(key)

    def written(self, key: str, digest: str) -> None:
        """The content named by `digest` is on disk; a trial of another one has become pointless."""
        trial = self._trials.get(key)
        if trial and trial.digest != digest:
            self._trials.end(key)
            self._report.attributes({CONFIRM + key: "replaced"})
        elif trial and not trial.written:
            self._trials.put(replace(trial, written=True))
            self._report.attributes({CONFIRM + key: f"on trial for {trial.confirm_s} s"})

    def controller_restarted(self, key: str) -> None:
        if trial := self._trials.get(key):
            self._with_heartbeat(replace(trial, restarted=True, heartbeat_known=False))

    def _trial(self, definition: Definition, content: Content, confirm_s: int) -> FileTrial:
        running = self._trials.get(definition.key)
        return FileTrial(
            key=definition.key,
            path=definition.path,
            digest=content.digest(definition.write_version),
            md5=content.md5,
            confirm_s=confirm_s,
            deadline_s=self._clock.monotonic_s() + confirm_s,
            boot_id=self._clock.boot_id(),
            restart=definition.restart_controller,
            applied_before=running.applied_before if running else self._applied.get(definition.key),
        )

    def _is_what_was_there(self, trial: FileTrial, content: Content) -> bool:
        return self._trials.previous(trial.key).content == content.data

    # --- the verdict ---------------------------------------------------------------------------------------

    def judge(self) -> dict[str, str]:
        """Confirm or put back what is decided now; return what went wrong, by key."""
        problems = {}
        for trial in self.running():
            verdict, reason = self._verdict(trial)
            if verdict is TrialOutcome.CONFIRM:
                self._confirm(trial)
            elif verdict is TrialOutcome.REVERT and (problem := self._try_to_put_back(trial, reason)):
                problems[trial.key] = problem
        self._failures.keep_only([trial.key for trial in self.running()])
        return problems

    def _verdict(self, trial: FileTrial) -> tuple[TrialOutcome, str]:
        heartbeat_ms = None
        if trial.restarted:
            trial = self._with_heartbeat(trial)
            heartbeat_ms = self._heartbeat_ms()
        return plan_trial(trial, self._clock.monotonic_s(), self.answered_s, heartbeat_ms)

    def _with_heartbeat(self, trial: FileTrial) -> FileTrial:
        """Note the heartbeat that was there at the restart, as soon as it can be read."""
        if not trial.heartbeat_known:
            try:
                trial = replace(trial, heartbeat_known=True, heartbeat_ms=self._heartbeat.last_heartbeat_ms())
            except Unavailable as reason:
                logger.debug("no heartbeat to compare with yet: %s", reason)
            self._trials.put(trial)
        return trial

    def _heartbeat_ms(self) -> int | None:
        try:
            return self._heartbeat.last_heartbeat_ms()
        except Unavailable:
            return None

    def _confirm(self, trial: FileTrial) -> None:
        self._report.attributes({CONFIRM + trial.key: "confirmed"})
        self._trials.end(trial.key)
        logger.info("file '%s' is confirmed", trial.key)

    def _try_to_put_back(self, trial: FileTrial, reason: str) -> str | None:
        """The old bytes back, in an order that any crash leaves to be done again; return what went wrong."""
        key, now_s = trial.key, self._clock.monotonic_s()
        said = f"put back: {reason}; change write_version to try this content again"
        self.refused.put(key, [trial.digest, said])
        if waiting := self._failures.waiting(key, trial.digest, now_s):
            return waiting
        try:
            self._put_back(trial)
        except (Refused, Unavailable) as error:
            problem = f"cannot be put back: {error}"
            self._failures.add(key, trial.digest, problem, now_s)
            return problem
        self._report.attributes({CONFIRM + key: sayable(said)})
        self._trials.end(key)
        logger.error("file '%s' was %s", key, said)
        return None

    def _put_back(self, trial: FileTrial) -> None:
        previous = self._trials.previous(trial.key)
        if trial.restart:
            self._restarts.arm(trial.key)
        if previous.content is None:
            self._store.remove(trial.path)
        else:
            self._store.write(trial.path, previous.content, previous.mode)
        if trial.restart:
            self._restarts.now_due(trial.key)
        self._applied.put(trial.key, dict(trial.applied_before or {}))

    def _recover(self, trial: FileTrial) -> None:
        """A crash between the intent and the write: find out which side of it we are on."""
        if trial.written:
            return
        try:
            seen = self._store.look(trial.path)
        except (Refused, Unavailable) as reason:
            logger.warning("file '%s' on trial cannot be looked at: %s", trial.key, reason)
            return
        previous = self._trials.previous(trial.key).content
        if seen is not None and seen.md5 == trial.md5:
            self._trials.put(replace(trial, written=True))
        elif (previous is None) == (seen is None) and (seen is None or seen.content == previous):
            self._trials.end(trial.key)
