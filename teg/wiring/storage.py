"""The gateway's own database and the controller's inbox."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass

from teg.adapters import private_files
from teg.adapters.ballast import Ballast
from teg.adapters.clock import clock_is_synchronised
from teg.adapters.gateway_db import clock_anchors, outbox, rpc_journal, state
from teg.adapters.gateway_db.clock_anchors import ClockAnchors
from teg.adapters.gateway_db.keeper import DatabaseKeeper
from teg.adapters.gateway_db.legacy_import import LegacyImportTable
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.rpc_journal import RpcJournalTable
from teg.adapters.gateway_db.state import ClientAttributeTable, StateTable
from teg.adapters.gateway_db.telemetry_keys import ArchivedKeys
from teg.adapters.gateway_db.thinned import ThinnedOutbox
from teg.adapters.gateway_db.unproven import UnprovenTable
from teg.adapters.inbox.legacy_databases import LegacyDatabases
from teg.adapters.inbox.mailbox import Inbox
from teg.domain.liveness import Liveness
from teg.domain.ports import Clock
from teg.domain.telemetry.in_flight import DeliveryMarks
from teg.domain.telemetry.legacy_import import LegacyImport
from teg.domain.telemetry.retention import Retention
from teg.settings import Settings, env_file

logger = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """`inbox` belongs to the controller; everything else is a table of `gateway.db`."""

    keeper: DatabaseKeeper
    inbox: Inbox
    records: RecordTable
    marks: DeliveryMarks
    clock_anchors: ClockAnchors
    state: StateTable
    client_attributes: ClientAttributeTable
    calls: RpcJournalTable
    maintenance: ArchiveMaintenance
    telemetry_keys: ArchivedKeys
    legacy_import: LegacyImportTable
    unproven: UnprovenTable
    thinned: ThinnedOutbox


def open_storage(settings: Settings, stack: ExitStack, clock: Clock, liveness: Liveness) -> Storage:
    """What the disk does not let us open now is opened later (`tend_storage`); until then its users hear Unavailable.

    Raises:
        Unavailable: the directories cannot be made ready now.
    """
    _prepare_directories(settings)
    keeper = DatabaseKeeper(settings.data_path / "gateway.db", clock.monotonic_s, liveness.committed)
    stack.callback(keeper.close)
    keeper.open_when_possible(outbox.SCHEMA, state.SCHEMA, rpc_journal.SCHEMA, clock_anchors.SCHEMA)
    database = keeper.database
    anchors = ClockAnchors(database, clock, clock_is_synchronised)
    inbox = Inbox(settings.inbox_path)
    stack.callback(inbox.close)
    records = RecordTable(database, anchors.note)
    marks = DeliveryMarks(records)
    return Storage(
        keeper=keeper,
        inbox=inbox,
        records=records,
        marks=marks,
        clock_anchors=anchors,
        state=StateTable(database),
        client_attributes=ClientAttributeTable(database),
        calls=RpcJournalTable(database),
        maintenance=ArchiveMaintenance(database, marks.write, thinned=bool(settings.report)),
        telemetry_keys=ArchivedKeys(database),
        legacy_import=LegacyImportTable(database),
        unproven=UnprovenTable(database),
        thinned=ThinnedOutbox(database, anchors.note),
    )


def _prepare_directories(settings: Settings) -> None:
    """Nobody else reads our files; those of an earlier layout are brought to where the controller cannot see them."""
    data, before = settings.data_path, settings.shared_before
    private_files.make_private(data)
    private_files.bring(settings.former_files, before, data)
    if before:
        logger.warning("%s is the controller's directory; what is the gateway's alone lies in %s", before, data)
    if private_files.is_open_to_others(env_file()):
        logger.warning("%s can be read by every account of this machine: chmod 640", env_file())


def build_retention(settings: Settings, storage: Storage, clock: Clock) -> Retention:
    ballast = Ballast(settings.data_path / "gateway.db.ballast")
    return Retention(storage.maintenance, ballast, clock, settings.archive_max_bytes, settings.archive_max_days)


def build_legacy_import(settings: Settings, storage: Storage) -> LegacyImport:
    return LegacyImport(LegacyDatabases(settings.legacy_data_path, settings.inbox_path), storage.legacy_import)
