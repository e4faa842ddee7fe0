"""How the controller's state is told to the server: names and shapes of `controller_*` (docs/controller.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from domain.ota import reported_version
from domain.supervision import History

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
