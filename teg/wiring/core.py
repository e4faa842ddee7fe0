"""The parts that touch disk, logs and server: made when first asked for, once, and closed with the stack."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property

from producers.mqtt_listener import MqttListener
from tasks.attributes import publish_attributes
from tasks.telemetry import records_stored
from teg.adapters import tls
from teg.adapters.clock import SystemClock
from teg.adapters.gateway_db import outbox as records
from teg.adapters.gateway_db import rpc_journal as rpc_journal
from teg.adapters.gateway_db import state
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.legacy_import import LegacyImportTable
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.state import ClientAttributeTable, StateTable
from teg.adapters.inbox.mailbox import Inbox
from teg.adapters.legacy_databases import LegacyDatabases
from teg.adapters.log_handlers import LogOutput
from teg.adapters.mqtt_provisioning import ProvisioningEndpoint
from teg.adapters.mqtt_session import MqttSession, Server
from teg.adapters.token_file import AccessTokenFile
from teg.domain.errors import Unavailable
from teg.domain.rpc.log_level import LogLevel
from teg.domain.server.attributes import ServerAttributes
from teg.domain.server.provisioning import Credentials, ProvisionKeys
from teg.domain.server.rate_limits import CAUTIOUS
from teg.domain.telemetry.legacy_import import LegacyImport
from teg.domain.telemetry.publisher import Publisher
from teg.domain.telemetry.reporting import LogLines, Reporter
from teg.domain.telemetry.retention import Retention
from teg.settings import Settings

logger = logging.getLogger("gateway")


class CoreParts:
    """What every other part stands on."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self.stopping = threading.Event()
        self.clock = SystemClock()
        self.log_output = self._install_log_output()

    # --- disk ----------------------------------------------------------------------------------------------

    @cached_property
    def database(self) -> Database:
        database = Database(self._settings.data_path / "gateway.db")
        self._stack.callback(database.close)
        _until_available(lambda: database.open(records.SCHEMA, state.SCHEMA, rpc_journal.SCHEMA))
        return database

    @cached_property
    def table(self) -> RecordTable:
        return RecordTable(self.database)

    @cached_property
    def state(self) -> StateTable:
        return StateTable(self.database)

    @cached_property
    def maintenance(self) -> ArchiveMaintenance:
        return ArchiveMaintenance(self.database)

    @cached_property
    def inbox(self) -> Inbox:
        inbox = Inbox(self._settings.inbox_path)
        self._stack.callback(inbox.close)
        return inbox

    def _retention(self) -> Retention:
        settings = self._settings
        return Retention(self.maintenance, self.clock, settings.archive_max_bytes, settings.archive_max_days)

    def _legacy_import(self) -> LegacyImport:
        old = LegacyDatabases(self._settings.data_path, self._settings.inbox_path)
        return LegacyImport(old, LegacyImportTable(self.database))

    # --- logs ----------------------------------------------------------------------------------------------

    def _install_log_output(self) -> LogOutput:
        output = LogOutput(self._settings.log_level)
        output.add_secret(self._settings.provision_secret)
        output.install()
        self._stack.callback(output.remove)
        return output

    @cached_property
    def log_lines(self) -> LogLines:
        return LogLines(self.table, self.clock, records_stored)

    @cached_property
    def log_level(self) -> LogLevel:
        return LogLevel(self.log_output.set_level, self._settings.log_level, self.clock)

    # --- server --------------------------------------------------------------------------------------------

    @cached_property
    def server(self) -> Server:
        settings = self._settings
        if not settings.tb_tls:
            logger.warning("TB_TLS=off: the access token and all data go over the network in the clear")
            return Server(settings.tb_host, settings.tb_port, None)
        return Server(settings.tb_host, settings.tb_port, tls.client_context(settings.ca_cert))

    @cached_property
    def session(self) -> MqttSession:
        listener = MqttListener()
        return MqttSession(self.server, self._token, listener.received, listener.connected)

    def _token(self) -> str:
        found = self.credentials.token()
        self.log_output.add_secret(found)
        return found

    @cached_property
    def credentials(self) -> Credentials:
        settings, keys = self._settings, None
        if settings.provision_key and settings.provision_secret:
            keys = ProvisionKeys(settings.device_name, settings.provision_key, settings.provision_secret)
        endpoint = ProvisioningEndpoint(self.server.host, self.server.port, self.server.tls)
        return Credentials(AccessTokenFile(settings.access_token_path), keys, endpoint.ask)

    @cached_property
    def publisher(self) -> Publisher:
        publisher = Publisher(self.table, self.session, self.clock)
        publisher.pacer.use(CAUTIOUS, self.clock.monotonic_s())
        return publisher

    @cached_property
    def reporter(self) -> Reporter:
        attributes = ClientAttributeTable(self.database)
        return Reporter(self.table, attributes, self.session, self.clock, records_stored, lambda: publish_attributes())

    @cached_property
    def attributes(self) -> ServerAttributes:
        """One for all: request ids must not collide."""
        return ServerAttributes(self.session)


def _until_available(opening: Callable[[], None]) -> None:
    """A full or locked disk at the start is weather too."""
    while True:
        try:
            return opening()
        except Unavailable as reason:
            logger.error("%s; trying again in 5 s", reason)
            time.sleep(5.0)
