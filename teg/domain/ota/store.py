"""What an update leaves in `State` between two steps, and what it tells the server at each."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import UNKNOWN_VERSION, Assignment, SwState, status
from teg.domain.ota.job import SW_STATES, Job, Phase, Settled, Wanted
from teg.domain.ota.ports import ControllerLock
from teg.domain.ports import Report, State
from teg.domain.supervision import ControllerRuntime

WANTED_KEY = "ota.wanted"
JOB_KEY = "ota.job"
SETTLED_KEY = "ota.settled"
PREVIOUS_KEY = "ota.previous"
TITLES_KEY = "ota.titles"
CONTENTS_KEY = "ota.contents"
SIGNED_KEY = "ota.signed"
UNKNOWN_TOLD_KEY = "ota.told_of_nothing"
TOLD_KEY = "ota.told"
TELL_AGAIN_KEY = "ota.tell_again"
#: The life of the last updates, for `teg why`: `[when_ms, assigned version, running version, state, error]` each.
STEPS_KEY = "ota.steps"

logger = logging.getLogger("gateway.ota")

#: Versions whose title and content are remembered.
_REMEMBERED = 20
_REMEMBERED_STEPS = 100


def tell_again(state: State) -> None:
    """The server has lost what it was told: the last word about an update is told once more, at the next rest."""
    state.put(TELL_AGAIN_KEY, True)


class UpdateStore:
    """Reads and writes the persisted records; nothing is kept in memory that a crash would have to bring back."""

    def __init__(
        self,
        state: State,
        report: Report,
        runtime: ControllerRuntime,
        controller: ControllerLock,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._state = state
        self._report = report
        self._runtime = runtime
        self._controller = controller
        self._now_ms = now_ms
        self._told: tuple[int, SwState, str] | None = None

    # --- records -------------------------------------------------------------------------------------------

    def wanted(self) -> Wanted:
        return Wanted(**(self._state.get(WANTED_KEY) or {}))

    def put_wanted(self, wanted: Wanted) -> None:
        self._state.put(WANTED_KEY, asdict(wanted))

    def job(self) -> Job | None:
        stored = self._state.get(JOB_KEY)
        try:
            return None if stored is None else Job.parse(stored)
        except (TypeError, ValueError, KeyError, AttributeError) as error:  # written by another version of the gateway
            logger.error("an update in progress cannot be understood and begins anew: %s", error)
            self.end_job()
            return None

    def put_job(self, job: Job) -> Job:
        self._state.put(JOB_KEY, job.encode())
        return job

    def end_job(self) -> None:
        self._state.delete(JOB_KEY)

    def settled(self) -> Settled:
        return Settled(**(self._state.get(SETTLED_KEY) or {}))

    def settle(self, serial: int, *, failed: bool = False, restore_failed_ms: int | None = None) -> None:
        self._state.put(SETTLED_KEY, asdict(Settled(serial, failed, restore_failed_ms)))

    def previous(self) -> str:
        return str(self._state.get(PREVIOUS_KEY) or "")

    def put_previous(self, version: str) -> None:
        self._state.put(PREVIOUS_KEY, version)

    # --- what a version is -----------------------------------------------------------------------------------

    def put_title(self, assignment: Assignment) -> None:
        self._remember(TITLES_KEY, assignment.version, assignment.title)

    def content(self, version: str) -> str:
        """Names what was once obtained as `version`: `git:<commit>`, `sha256:<digest>`, `<ALGORITHM>:<checksum>`."""
        return str(self._contents().get(version, ""))

    def put_content(self, job: Job) -> None:
        content = f"git:{job.commit}" if job.commit else job.assignment.content()
        if content and content != self.content(job.version):
            self._remember(CONTENTS_KEY, job.version, content)

    def put_signed(self, job: Job) -> None:
        """Note that the content of this version, as it is now, was verified to be signed."""
        self._remember(SIGNED_KEY, job.version, self.content(job.version))

    def is_signed(self, version: str) -> bool:
        noted = (self._state.get(SIGNED_KEY) or {}).get(version)
        return bool(noted) and noted == self.content(version)

    def pinned_commit(self, version: str) -> str:
        kind, _, value = self.content(version).partition(":")
        return value if kind == "git" else ""

    def conflict(self, assignment: Assignment) -> bool:
        """Whether other content was obtained under this version before."""
        kept, wanted = self.content(assignment.version), assignment.content()
        return bool(wanted) and kept != wanted and kept.partition(":")[0] == wanted.partition(":")[0]

    def _contents(self) -> Mapping[str, Any]:
        return self._state.get(CONTENTS_KEY) or {}

    def _remember(self, key: str, version: str, text: str) -> None:
        known = {name: value for name, value in (self._state.get(key) or {}).items() if name != version}
        self._state.put(key, dict([*known.items(), (version, text)][-_REMEMBERED:]))

    # --- what the server is told -----------------------------------------------------------------------------

    def tell(self, serial: int, state: SwState, error: str = "") -> None:
        """Once a state, and again after a restart of the gateway; `current_*` is what really runs."""
        if self._told == (serial, state, error):
            return
        self._tell(serial, state, error, self.current_version())

    def correct(self) -> None:
        """A state that was told while nothing ran is told once more when something does: the server keeps the last one.
        So is one that the server has lost (`tell_again`).

        Raises:
            Unavailable: the state or the report cannot be stored now.
        """
        again = self._state.get(TELL_AGAIN_KEY)
        told = self._state.get(TOLD_KEY if again else UNKNOWN_TOLD_KEY)
        if told is not None and ((version := self.current_version()) != UNKNOWN_VERSION or again):
            serial, state, error = told
            self._tell(serial, SwState(state), error, version)
        if again:
            self._state.delete(TELL_AGAIN_KEY)

    def _tell(self, serial: int, state: SwState, error: str, version: str) -> None:
        told = [serial, state.value, error]
        if version == UNKNOWN_VERSION:
            self._state.put(UNKNOWN_TOLD_KEY, told)
        title = str((self._state.get(TITLES_KEY) or {}).get(version, version))
        self._report.telemetry(status(version, title, state, error))
        if version != UNKNOWN_VERSION and self._state.get(UNKNOWN_TOLD_KEY) is not None:
            self._state.delete(UNKNOWN_TOLD_KEY)
        if self._state.get(TOLD_KEY) != told:
            self._state.put(TOLD_KEY, told)
        self._told = (serial, state, error)
        self._note_step(version, state, error)

    def _note_step(self, running: str, state: SwState, error: str) -> None:
        """What is told again after a restart of the gateway is no new step."""
        job = self._state.get(JOB_KEY) or {}
        attributes = self.wanted().attributes or {}
        assigned = (job.get("assignment") or {}).get("version") or attributes.get("sw_version") or running
        steps = self._state.get(STEPS_KEY) or []
        step = [str(assigned), running, state.value, error]
        if not steps or steps[-1][1:] != step:
            self._state.put(STEPS_KEY, [*steps, [self._now_ms(), *step]][-_REMEMBERED_STEPS:])

    def tell_phase(self, job: Job) -> None:
        """The end is told when it is true: by whoever brings it about."""
        if job.phase is Phase.FAILING:
            return
        error = f"attempt {job.attempt} failed, it is tried again: {job.reason}" if job.retry_at_ms else ""
        self.tell(job.serial, SW_STATES[job.phase], error)

    def current_version(self) -> str:
        """The one that runs; unknown also while the engine cannot be asked, and set right by `correct` when it can."""
        committed = self._controller.version()
        with suppress(Unavailable, Refused):
            seen = self._runtime.observe()
            if seen.version is None and committed is not None and seen.runs(committed):
                return committed  # the reference gateway's container carries no version
            return seen.version if seen.running and seen.version is not None else UNKNOWN_VERSION
        return UNKNOWN_VERSION


def adopted(job: Job, wanted: Wanted) -> Job:
    return replace(job, serial=wanted.serial)
