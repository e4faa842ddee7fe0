"""Commit-confirm: a new content is on trial until the gateway was heard again; otherwise the old bytes come back.

Nothing counts in the first half of the time: a change that cuts the link off does so seconds later, and an answer
that came before proves nothing. The clock is monotonic and belongs to one boot. After a first reboot the whole time
starts again; at the second the content is put back at once, since a content that makes the device reboot would
otherwise be given its time for ever.
"""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from teg.domain.errors import Refused
from teg.domain.files.definitions import MAX_FILE_BYTES
from teg.domain.files.ports import FileState
from teg.domain.ports import State

MAX_BOOTS = 1

_TRIAL = "files/trial/"
_PREVIOUS = "files/previous/"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTrial:
    """One content on trial. `digest` names the attempt, `applied_before` is what was remembered of the one before."""

    key: str
    path: str
    digest: str
    md5: str
    confirm_s: int
    deadline_s: float
    boot_id: str
    boots: int = 0
    restart: bool = False
    #: The bytes are on disk; False between the intent and the write.
    written: bool = False
    restarted: bool = False
    #: The heartbeat that was there when the controller had been restarted, once it could be read.
    heartbeat_known: bool = False
    heartbeat_ms: int | None = None
    applied_before: Mapping[str, Any] | None = None

    @property
    def half_s(self) -> float:
        return self.deadline_s - self.confirm_s / 2


@dataclass(frozen=True, slots=True)
class Previous:
    """What was there before the trial; `content` None when there was no file."""

    content: bytes | None
    mode: int | None


class TrialOutcome(StrEnum):
    WAIT = "wait"
    CONFIRM = "confirm"
    REVERT = "revert"


def plan_trial(trial: FileTrial, now_s: float, answered_s: float, heartbeat_ms: int | None) -> tuple[TrialOutcome, str]:
    """Return what follows for `trial`, and for REVERT the reason.

    `answered_s` is when the last answered request was begun; `heartbeat_ms` the newest heartbeat, None if unknown.
    """
    answered = answered_s >= trial.half_s
    alive = not trial.restart or _alive(trial, heartbeat_ms)
    if answered and alive and now_s >= trial.half_s:
        return TrialOutcome.CONFIRM, ""
    if now_s < trial.deadline_s:
        return TrialOutcome.WAIT, ""
    if trial.boots > MAX_BOOTS:
        return TrialOutcome.REVERT, "the device was restarted twice before the content was confirmed"
    return TrialOutcome.REVERT, f"{_missing(trial, answered)} within {trial.confirm_s} s"


def _alive(trial: FileTrial, heartbeat_ms: int | None) -> bool:
    """A change of the value, not a comparison with our clock: either clock may jump."""
    fresh = heartbeat_ms is not None and heartbeat_ms != trial.heartbeat_ms
    return trial.restarted and trial.heartbeat_known and fresh


def _missing(trial: FileTrial, answered: bool) -> str:
    if not answered:
        return "no answer from the server"
    if not trial.restarted:
        return "the controller could not be restarted"
    return "no heartbeat from the restarted controller"


def wants_answer(trial: FileTrial, now_s: float, answered_s: float) -> bool:
    return now_s >= trial.half_s and answered_s < trial.half_s


def next_look_s(trial: FileTrial, now_s: float) -> float:
    """When to look at `trial` next: at half time, then ten times until the end."""
    if now_s < trial.half_s:
        return trial.half_s
    return now_s + max(1.0, trial.confirm_s / 20)


def resumed(trial: FileTrial, now_s: float, boot_id: str) -> FileTrial:
    """The trial as it goes on in this process: unchanged within a boot, with new time after one, ended after two."""
    if trial.boot_id == boot_id:
        return trial
    boots = trial.boots + 1
    deadline_s = now_s + trial.confirm_s if boots <= MAX_BOOTS else now_s
    return replace(trial, boots=boots, boot_id=boot_id, deadline_s=deadline_s)


class FileTrials:
    """All contents on trial and the bytes from before them, in `State`: durable before the first byte is written."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._running: dict[str, FileTrial] = {}

    def load(self, now_s: float, boot_id: str) -> None:
        self._running = {}
        for name in self._state.keys(_TRIAL):
            loaded = _decode_trial(self._state.get(name))
            trial = resumed(loaded, now_s, boot_id)
            self._running[trial.key] = trial
            if trial != loaded:
                self.put(trial)

    def running(self) -> list[FileTrial]:
        return list(self._running.values())

    def get(self, key: str) -> FileTrial | None:
        return self._running.get(key)

    def begin(self, trial: FileTrial, before: FileState | None) -> None:
        """The bytes first, then the trial that needs them. A trial that is replaced hands on its own bytes.

        Raises:
            Refused: what is there now is too large to be kept.
        """
        if trial.key not in self._running:
            if before is not None and before.content is None:
                raise Refused(f"with confirm_s the present file is kept, but {before.size} > {MAX_FILE_BYTES} bytes")
            self._state.put(_PREVIOUS + trial.key, _encode_previous(before))
        self.put(trial)

    def put(self, trial: FileTrial) -> None:
        self._state.put(_TRIAL + trial.key, asdict(trial))
        self._running[trial.key] = trial

    def previous(self, key: str) -> Previous:
        """What was there before.

        Raises:
            Refused: it is not kept any more; that must never be taken for "there was no file".
        """
        if (kept := self._state.get(_PREVIOUS + key)) is None:
            raise Refused("the bytes from before the trial are missing")
        content = kept["content"]
        return Previous(None if content is None else base64.b64decode(content), kept["mode"])

    def end(self, key: str) -> None:
        self._state.delete(_TRIAL + key)
        self._running.pop(key, None)
        self._state.delete(_PREVIOUS + key)


def _decode_trial(kept: Mapping[str, Any]) -> FileTrial:
    """A field that another version wrote is ignored."""
    known = {field.name for field in fields(FileTrial)}
    return FileTrial(**{name: value for name, value in kept.items() if name in known})


def _encode_previous(before: FileState | None) -> dict[str, Any]:
    if before is None or before.content is None:
        return {"content": None, "mode": None}
    return {"content": base64.b64encode(before.content).decode(), "mode": before.mode}
