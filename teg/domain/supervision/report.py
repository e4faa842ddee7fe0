"""How the controller's state is told to the server: names and shapes of `controller_*` (docs/controller.md)."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.ports import Clock, Report
from teg.domain.supervision.policy import History
from teg.domain.supervision.runtime import ControllerRuntime
from teg.domain.supervision.version import reported_version

logger = logging.getLogger("gateway.supervision")

#: Memory is told this often.
MEMORY_EVERY_S = 600.0
#: The told start of a run changes only when the clock was set by more than this, not by rounding.
STEADY_MS = 2_000

#: Last output that goes with a reported exit.
EXIT_LOG_LINES = 20
EXIT_LOG_BYTES = 4_000


class Condition(StrEnum):
    """The values of `controller_state`."""

    UNKNOWN = "unknown"  #: not looked yet
    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"  #: it ended; the next start is planned
    NO_VERSION = "no version"
    IMAGE_MISSING = "image missing"
    NAME_TAKEN = "name taken"
    MOUNT_REFUSED = "mount refused"
    ENGINE_UNREACHABLE = "engine unreachable"


@dataclass(frozen=True, slots=True)
class View:
    """What others see of the controller; `since_s` is the monotonic start of the run, None while it does not run."""

    condition: Condition = Condition.UNKNOWN
    reason: str = ""
    version: str | None = None
    since_s: float | None = None


def attributes(view: View, history: History, since_ms: int | None) -> dict[str, Any]:
    """Client attributes. The server cannot delete one and skips null, so what does not hold is empty or 0."""
    return {
        "controller_state": view.condition.value,
        "controller_state_reason": view.reason,
        "controller_version": reported_version(view.version) if view.version else "",
        "controller_running_since_ms": since_ms or 0,
        "controller_restarts": history.restarts,
        "controller_last_exit_code": "" if history.exit_code is None else history.exit_code,
        "controller_last_exit_reason": history.exit_reason,
        "controller_last_exit_ms": history.exit_ms or 0,
    }


def exit_telemetry(history: History, last_lines: Sequence[str]) -> Mapping[str, Any]:
    """One record an exit: what ended it and what it said last."""
    code = {} if history.exit_code is None else {"controller_exit_code": history.exit_code}
    return code | {
        "controller_exit_reason": history.exit_reason,
        "controller_exit_log": tail("\n".join(last_lines), EXIT_LOG_BYTES),
        "controller_failures": history.failures,
    }


def tail(text: str, limit_bytes: int) -> str:
    """The end of `text` in at most `limit_bytes` of UTF-8, from the start of a line where that is possible."""
    if len(text.encode()) <= limit_bytes:
        return text
    cut = text.encode()[-limit_bytes:].decode(errors="ignore")
    return cut.partition("\n")[2] or cut


class ControllerTeller:
    """Tells what changed: attributes when one of them differs, each exit once, memory now and then."""

    def __init__(self, report: Report, runtime: ControllerRuntime, clock: Clock) -> None:
        self._report = report
        self._runtime = runtime
        self._clock = clock
        #: What the controller printed before its last end, of those that we have seen.
        self.last_words: tuple[str, ...] = ()
        self._waiting: list[Mapping[str, Any]] = []
        self._noted_run_id: str | None = None
        self._told: Mapping[str, Any] = {}
        self._memory_due_s = 0.0

    def note(self, values: Mapping[str, Any]) -> None:
        """To be told as telemetry with the next `tell`."""
        self._waiting.append(values)

    def tell(self, view: View, history: History, since_ms: int | None) -> History:
        """Returns `history` with the exit noted as told.

        Raises:
            Unavailable: the report could not be stored; what is missing is told the next time.
        """
        if history.ended_run_id not in (history.told_run_id, self._noted_run_id):
            self._note_exit(history)
        while self._waiting:
            self._report.telemetry(self._waiting[0])
            self._waiting.pop(0)
        facts = attributes(view, history, self._steady(since_ms))
        if facts != self._told:
            self._report.attributes(facts)
            self._told = facts
        if view.since_s is not None:
            self._tell_memory()
        return replace(history, told_run_id=history.ended_run_id)

    def _note_exit(self, history: History) -> None:
        lines: list[str] = []
        with suppress(Unavailable, Refused):  # the exit is worth telling without its last words
            lines = self._runtime.logs(EXIT_LOG_LINES)
        logger.warning("the controller ended (code %s): %s", history.exit_code, history.exit_reason)
        self.last_words = tuple(lines)
        self.note(exit_telemetry(history, lines))
        self._noted_run_id = history.ended_run_id

    def _steady(self, since_ms: int | None) -> int | None:
        told_ms = self._told.get("controller_running_since_ms")
        return told_ms if since_ms and told_ms and abs(since_ms - told_ms) < STEADY_MS else since_ms

    def _tell_memory(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._memory_due_s:
            return
        self._memory_due_s = now_s + MEMORY_EVERY_S
        with suppress(Unavailable, Refused):  # asked again in ten minutes
            if (memory_bytes := self._runtime.memory_bytes()) is not None:
                self._report.telemetry({"controller_memory_bytes": memory_bytes})
