"""What the server is told about remote files (`FILE_HASHES`, `FILE_READ_`, `FILE_ERROR_`), and only when it changed.

Pure: values as the reference gateway's dashboards expect them; markers begin with `E_`.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from teg.domain.files.definitions import MAX_KEY_LENGTH, Definition
from teg.domain.files.desired import FILE_HASHES
from teg.domain.files.ports import FileState
from teg.domain.ports import Clock, Report, State
from teg.domain.server import MAX_PAYLOAD_BYTES

READ = "FILE_READ_"
ERROR = "FILE_ERROR_"
CONFIRM = "FILE_CONFIRM_"
#: Said of `FILES` as a whole when it is no JSON object.
FILES_ERROR = "FILES_ERROR"

NO_FILE = "E_NOFILE"
EMPTY_FILE = "E_EMPTYFILE"
TOO_LARGE = "E_TOOLARGE"
NOT_TEXT = "E_NOTTEXT"

MAX_ERROR_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One file as a report needs it: what is on disk, the version that is there, and whether the bytes are ours."""

    definition: Definition
    seen: FileState | None
    write_version: Any
    ours: bool

    @property
    def hashes_entry(self) -> dict[str, Any]:
        return {"hash": self.seen.md5 if self.seen else NO_FILE, "write_version": self.write_version}

    @property
    def token(self) -> str:
        """Changes when `FILE_READ_<key>` has to be sent again."""
        return f"{self.seen.md5 if self.seen else NO_FILE}/{self.definition.encoding}/{int(self.ours)}"


@dataclass(slots=True)
class Told:
    """What the server was told last; `hashes` None: it has no `FILE_HASHES`."""

    hashes: dict[str, Any] | None = None
    reads: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, kept: Any) -> "Told":
        if not isinstance(kept, Mapping):
            return cls()
        return cls(kept.get("hashes"), dict(kept.get("reads") or {}), dict(kept.get("errors") or {}))

    def heard(self, hashes: Any) -> None:
        """Take over what the server really has: files whose entry differs there are told anew."""
        ours = self.hashes or {}
        theirs: Mapping[str, Any] = hashes if isinstance(hashes, Mapping) else {}
        for key in ours.keys() | self.reads.keys():
            if ours.get(key) != theirs.get(key):
                self.reads.pop(key, None)
        self.hashes = dict(hashes) if isinstance(hashes, Mapping) else None


def plan_hashes(looks: Mapping[str, Snapshot]) -> dict[str, Any]:
    return {key: look.hashes_entry for key, look in sorted(looks.items())}


def plan_errors(told: Mapping[str, str], errors: Mapping[str, str]) -> dict[str, str]:
    """Attributes that say what is wrong now, and "" for what no longer is."""
    changed = {ERROR + key: error for key, error in errors.items() if told.get(key) != error}
    return changed | {ERROR + key: "" for key in told if key not in errors}


def gone(told: Told, looks: Mapping[str, Snapshot]) -> set[str]:
    """Keys whose last `FILE_READ_` no longer stands for a file (a longer key was never one of ours)."""
    keys = (set(told.reads) | set(told.hashes or {})) - set(looks)
    return {key for key in keys if len(key) <= MAX_KEY_LENGTH}


def encode_read(look: Snapshot) -> Any:
    """The value of `FILE_READ_<key>`; `look.seen.content` has to be there unless the file is too large."""
    seen = look.seen
    if seen is None:
        return NO_FILE
    if seen.content is None:
        return _marker(TOO_LARGE, seen)
    if not seen.content:
        return EMPTY_FILE
    value = _readable(look, seen.content)
    if value is None:
        return _marker(NOT_TEXT, seen)
    return value if _fits(look.definition.key, value) else _marker(TOO_LARGE, seen)


def _readable(look: Snapshot, content: bytes) -> Any:
    """None for bytes that are not the text they were declared to be. NUL cannot be stored by ThingsBoard."""
    if look.definition.encoding == "base64":
        return base64.b64encode(content).decode()
    try:
        text = content.decode()
        if "\0" in text:
            return None
        return orjson.loads(content) if look.ours and look.definition.encoding == "json" else text
    except UnicodeDecodeError:
        return None
    except orjson.JSONDecodeError:
        return text


def _fits(key: str, value: Any) -> bool:
    return len(orjson.dumps(value)) + 2 * len((READ + key).encode()) + 64 <= MAX_PAYLOAD_BYTES


def _marker(name: str, seen: FileState) -> str:
    return f"{name} size={seen.size} md5={seen.md5}"


def sayable(text: str) -> str:
    """Text that fits into an attribute and into JSON."""
    return text[:MAX_ERROR_CHARACTERS].encode(errors="replace").decode()


__all__ = ["CONFIRM", "ERROR", "FILES_ERROR", "FILE_HASHES", "READ", "Snapshot", "Told"]


#: After our own report the server's FILE_HASHES may be older than what is on its way to it.
REPORT_TRAVEL_S = 5.0

_TOLD = "files/told"
_PROBLEM = "files/problem"


class Telling:
    """A report is remembered as told only after it is durable, so a crash tells something twice, never not at all."""

    def __init__(self, report: Report, state: State, clock: Clock) -> None:
        self._report = report
        self._state = state
        self._clock = clock
        self._told = Told()
        self._told_s = float("-inf")

    def load(self) -> None:
        self._told = Told.of(self._state.get(_TOLD))

    def heard(self, hashes: Any, asked_s: float) -> None:
        """Compare with what the server has, unless our last report may still have been on its way when we asked."""
        if asked_s >= self._told_s + REPORT_TRAVEL_S or self._told.hashes is None:
            self._told.heard(hashes)

    def forget(self) -> None:
        """RPC `init_files`: as if the server knew nothing."""
        self._report.attributes({FILE_HASHES: {}})
        self._told = Told()
        self._state.put(_TOLD, {})

    def definitions(self, problem: str) -> None:
        """Say what is wrong with `FILES` as a whole, "" when nothing is."""
        if (self._state.get(_PROBLEM) or "") != problem:
            self._report.attributes({FILES_ERROR: sayable(problem)})
            self._state.put(_PROBLEM, problem)

    def tell(
        self, looks: Mapping[str, Snapshot], errors: Mapping[str, str], read: Callable[[Snapshot], Snapshot | None]
    ) -> None:
        """Report the differences. `read` returns a look with its content, None when the file cannot be read now."""
        news = {key: read(look) for key, look in looks.items() if self._told.reads.get(key) != look.token}
        fresh = {key: look for key, look in news.items() if look is not None}
        looks = {key: fresh.get(key, look) for key, look in looks.items() if key in fresh or key not in news}
        reads = {key: look.token for key, look in looks.items()}
        errors = {key: sayable(text) for key, text in errors.items()}
        hashes = plan_hashes(looks)
        values: dict[str, Any] = dict(plan_errors(self._told.errors, errors))
        values |= {READ + key: encode_read(look) for key, look in fresh.items()}
        values |= {READ + key: "" for key in gone(self._told, looks)}
        if hashes != self._told.hashes:
            values[FILE_HASHES] = hashes
        if values:
            self._report.attributes(values)
            self._told, self._told_s = Told(hashes, reads, errors), self._clock.monotonic_s()
            self._state.put(_TOLD, {"hashes": hashes, "reads": reads, "errors": errors})
