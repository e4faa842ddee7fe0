"""What an update needs of others, as Protocols."""

from contextlib import AbstractContextManager
from typing import Protocol


class ControllerLock(Protocol):
    """The supervisor, as far as an update needs it (`teg/domain/supervision/supervisor.py`)."""

    def exclusive(self, holder: str) -> AbstractContextManager[None]:
        """Be the only one who starts and stops the controller; raises Unavailable when that cannot be had now."""
        ...

    def version(self) -> str | None:
        """The version that has to run, None while none is known."""
        ...

    def was_on_trial(self, version: str) -> bool:
        """Whether `version` was committed after a trial on this device."""
        ...

    def running_since_ms(self) -> int | None:
        """When the running controller was started, None while it does not run."""
        ...

    def commit_version(self, version: str) -> None:
        """`version` has to run from now on; ends a trial."""
        ...

    def note_trial(self, version: str | None) -> None:
        """`version` may run, too, until it is committed or another call says otherwise."""
        ...
