"""The running gateway as the tasks see it: one typed, frozen record, filled by the composition root.

A queue erases object references, so tasks look their collaborators up here (`huey.services`) and nowhere else.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from teg.domain.files.reconciler import Files
    from teg.domain.flash_budget import FlashBudget
    from teg.domain.ota.updater import NoUpdates, SoftwareUpdate
    from teg.domain.ports import Session
    from teg.domain.rpc.dispatcher import RpcDispatcher
    from teg.domain.rpc.log_level import LogLevel
    from teg.domain.server.attributes import Synchroniser
    from teg.domain.server.link_budget import LinkBudget
    from teg.domain.supervision.supervisor import NoController, Supervisor
    from teg.domain.telemetry.ingest import Recorder
    from teg.domain.telemetry.legacy_import import LegacyImport
    from teg.domain.telemetry.ports import StorageKeeper
    from teg.domain.telemetry.publisher import Publisher
    from teg.domain.telemetry.reporting import Auxiliary, LogLines, Reporter
    from teg.domain.telemetry.retention import Retention
    from teg.domain.telemetry.storage_proof import StorageProof


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a task may call. `stopping` is set when the consumer begins to stop: idle drainers end then."""

    session: Session
    recorder: Recorder
    publisher: Publisher
    reporter: Reporter
    storage_proof: StorageProof
    auxiliary: Auxiliary
    log_lines: LogLines
    synchroniser: Synchroniser
    link: LinkBudget
    flash: FlashBudget
    storage: StorageKeeper
    retention: Retention
    legacy_import: LegacyImport
    supervisor: Supervisor | NoController
    files: Files
    calls: RpcDispatcher
    ota: SoftwareUpdate | NoUpdates
    log_level: LogLevel
    stopping: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Called once when the consumer begins to stop, before its workers have finished."""
        self.stopping.set()
        self.storage.stop_waiting()
        self.recorder.signal.notify()
        self.publisher.signal.notify()
