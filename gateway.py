"""The composition root: picks the concrete classes, opens them before the first worker and closes them after the last.

Start the gateway with `huey_consumer gateway.huey`. Nothing imports this module but the consumer and the console.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from adapters import tls
from adapters.clock import SystemClock
from adapters.gateway_db import records, state
from adapters.gateway_db.database import Database
from adapters.gateway_db.records import RecordTable
from adapters.gateway_db.state import ClientAttributeTable
from adapters.gateway_db.upkeep import ArchiveUpkeep
from adapters.inbox import Inbox
from adapters.inbox_changes import InboxChanges
from adapters.log_output import LogOutput
from adapters.mqtt_session import MqttSession, Server
from adapters.provisioning import ProvisioningEndpoint
from adapters.token_file import AccessTokenFile
from domain.attributes import ServerAttributes, Synchroniser
from domain.errors import Unavailable
from domain.housekeeping import Housekeeping
from domain.provisioning import Credentials, ProvisionKeys
from domain.publishing import Publisher
from domain.recording import Recorder
from domain.reporting import Auxiliary, LogLines, Reporter
from domain.services import Services
from producers.controller_feed import ControllerFeed
from producers.mqtt_listener import MqttListener
from settings import Settings
from tasks import periodic
from tasks.attributes import publish_attributes
from tasks.queue import huey as huey
from tasks.telemetry import records_stored, records_waiting

logger = logging.getLogger("gateway")


@contextmanager
def lifespan(settings: Settings) -> Iterator[Services]:
    """Open everything, yield the services, and close in reverse; a raise in here ends the process with status 1."""
    with ExitStack() as stack:
        log_output = _log_output(settings, stack)
        database = _database(settings, stack)
        table, clock = RecordTable(database), SystemClock()
        inbox = Inbox(settings.inbox_path)
        stack.callback(inbox.close)
        listener = MqttListener()
        session = MqttSession(
            _server(settings), _token_source(settings, log_output), listener.received, listener.connected
        )
        publisher = Publisher(table, session, clock)
        reporter = Reporter(
            table, ClientAttributeTable(database), session, clock, records_stored, lambda: publish_attributes()
        )
        controller: Any = _NotYet()
        log_lines = LogLines(table, clock, records_stored)
        services = Services(
            session=session,
            recorder=Recorder(inbox, table, records_stored),
            publisher=publisher,
            reporter=reporter,
            auxiliary=Auxiliary(
                session,
                controller,
                inbox,
                clock,
            ),
            log_lines=log_lines,
            synchroniser=Synchroniser(
                ServerAttributes(session), publisher.pacer, reporter, controller, clock, controller
            ),
            housekeeping=Housekeeping(
                ArchiveUpkeep(database), clock, settings.archive_max_bytes, settings.archive_max_days
            ),
            files=_NotYet(),
            calls=_NotYet(),
        )
        log_output.forward_to(log_lines.add)
        feed = ControllerFeed(InboxChanges(settings.inbox_path), inbox, records_waiting)
        stack.callback(session.stop)
        stack.callback(feed.stop)
        with huey.serving(services):
            session.start()
            feed.start()
            logger.info(
                "gateway started: server %s:%d, data in %s", settings.tb_host, settings.tb_port, settings.data_path
            )
            yield services
            logger.info("gateway stopped")
            with suppress(Unavailable):
                log_lines.store()


class _NotYet:
    """Stands in for a subject that is not wired yet (controller, software, files, calls, host)."""

    def running_since_ms(self) -> int | None:
        return None

    def wanted(self, shared: Any) -> None: ...

    def reconcile(self) -> None: ...

    def tend(self) -> None: ...

    def take(self, request: Any) -> None: ...

    def sys_info(self) -> dict[str, Any]:
        return {}


def _log_output(settings: Settings, stack: ExitStack) -> LogOutput:
    output = LogOutput(settings.log_level)
    output.add_secret(settings.provision_secret)
    output.install()
    stack.callback(output.remove)
    return output


def _database(settings: Settings, stack: ExitStack) -> Database:
    database = Database(settings.data_path / "gateway.db")
    stack.callback(database.close)
    database.open(records.SCHEMA, state.SCHEMA)
    return database


def _server(settings: Settings) -> Server:
    if not settings.tb_tls:
        logger.warning("TB_TLS=off: the access token and all data go over the network in the clear")
        return Server(settings.tb_host, settings.tb_port, None)
    return Server(settings.tb_host, settings.tb_port, tls.client_context(settings.ca_cert))


def _token_source(settings: Settings, log_output: LogOutput) -> Any:
    server = _server(settings)
    keys = None
    if settings.provision_key and settings.provision_secret:
        keys = ProvisionKeys(settings.device_name, settings.provision_key, settings.provision_secret)
    endpoint = ProvisioningEndpoint(server.host, server.port, server.tls)
    credentials = Credentials(AccessTokenFile(settings.access_token_path), keys, endpoint.ask)

    def token() -> str:
        found = credentials.token()
        log_output.add_secret(found)
        return found

    return token


huey.lifespan = lifespan
huey.timetable = periodic.TIMETABLE
