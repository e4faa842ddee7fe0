"""The running gateway as the tasks see it: one typed, frozen record, filled by the composition root.

A queue erases object references, so tasks look their collaborators up here (`huey.services`) and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domain.attributes import Synchroniser
    from domain.files import Files
    from domain.housekeeping import Housekeeping
    from domain.log_level import LogLevel
    from domain.ota_machine import NoUpdates, SoftwareUpdate
    from domain.ports import Session
    from domain.publishing import Publisher
    from domain.recording import Recorder
    from domain.reporting import Auxiliary, LogLines, Reporter
    from domain.rpc import Calls
    from domain.supervisor import NoController, Supervisor
    from domain.takeover import Takeover


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a task may call. `stopping` is set when the consumer begins to stop: lingering work ends then."""

    session: Session
    recorder: Recorder
    publisher: Publisher
    reporter: Reporter
    auxiliary: Auxiliary
    log_lines: LogLines
    synchroniser: Synchroniser
    housekeeping: Housekeeping
    takeover: Takeover
    supervisor: Supervisor | NoController
    files: Files
    calls: Calls
    ota: SoftwareUpdate | NoUpdates
    log_level: LogLevel
    stopping: threading.Event = field(default_factory=threading.Event)
    on_stop: tuple[Callable[[], object], ...] = ()

    def stop(self) -> None:
        """Called once when the consumer begins to stop, before its workers have finished."""
        self.stopping.set()
        self.recorder.bell.ring()
        self.publisher.bell.ring()
        for hook in self.on_stop:
            hook()
