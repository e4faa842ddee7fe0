"""Which version of the controller has to run, and where that is remembered: `State`, and the reference's file."""

import os
import re
from pathlib import Path

from teg.domain.errors import Unavailable
from teg.domain.ports import State

VERSION_KEY = "controller.version"
TRIAL_KEY = "controller.trial"

#: What may stand in the reference's file or the settings; what OTA accepts is stricter.
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)", re.ASCII)
_PLAUSIBLE = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,127}")


class ControllerVersion:
    """The committed version and the one on trial; both survive a crash at any moment."""

    def __init__(self, state: State, version_file: Path, default: str | None) -> None:
        self._state = state
        self._version_file = version_file
        self._default = default

    def committed(self) -> str | None:
        """The version that has to run: what was committed last, else what the reference gateway ran last
        (`last_launched_controller_version.txt`), else the default of the settings, else None."""
        stored = self._state.get(VERSION_KEY)
        return stored if isinstance(stored, str) else self._taken_over() or self._default

    def was_committed(self, version: str) -> bool:
        """Whether `version` has to run because it proved itself here, not because settings or a file say so."""
        return bool(self._state.get(VERSION_KEY) == version)

    def _taken_over(self) -> str | None:
        try:
            found = self._version_file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None
        return found if _PLAUSIBLE.fullmatch(found) else None

    def commit(self, version: str) -> None:
        """From now on `version` has to run. The file is written, too, for scripts and for the way back."""
        self._state.put(VERSION_KEY, version)
        self._state.delete(TRIAL_KEY)
        try:
            self._write_file(version)
        except OSError as error:
            raise Unavailable(f"{self._version_file} cannot be written: {error}") from error

    def _write_file(self, version: str) -> None:
        self._version_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._version_file.with_name(self._version_file.name + ".new")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(version)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._version_file)

    def trial(self) -> str | None:
        stored = self._state.get(TRIAL_KEY)
        return stored if isinstance(stored, str) else None

    def note_trial(self, version: str | None) -> None:
        if version is None:
            self._state.delete(TRIAL_KEY)
        else:
            self._state.put(TRIAL_KEY, version)


def reported_version(version: str) -> str:
    """`version` as the server keeps it: it would store text that looks like a number as that number.

    `1.10` becomes `v1.10`; everything else is unchanged (docs/decisions/0041-versions-that-look-like-numbers.md).
    """
    return f"v{version}" if _NUMBER.fullmatch(version) else version
