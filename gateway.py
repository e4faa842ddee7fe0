"""The composition root: picks the concrete classes, opens them before the first worker and closes them after the last.

Start the gateway with `huey_consumer gateway.huey`. Nothing imports this module but the consumer and the console.
"""

import logging
import platform
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from adapters import tls
from adapters.clock import SystemClock
from adapters.docker_engine import DockerEngine
from adapters.files import ConfinedFiles, gateway_own_paths
from adapters.gateway_db import ledger, records, state
from adapters.gateway_db.database import Database
from adapters.gateway_db.ledger import CallLedger
from adapters.gateway_db.records import RecordTable
from adapters.gateway_db.state import ClientAttributeTable, StateTable
from adapters.gateway_db.telemetry_keys import ArchivedKeys
from adapters.gateway_db.upkeep import ArchiveUpkeep
from adapters.git_repository import GitRepository
from adapters.host.machine import HostMachine
from adapters.inbox import Inbox
from adapters.inbox_changes import InboxChanges
from adapters.log_output import LogOutput
from adapters.mqtt_session import MqttSession, Server
from adapters.process_runtime import ProcessRuntime
from adapters.provisioning import ProvisioningEndpoint
from adapters.software_package import PackagesOnDisk
from adapters.token_file import AccessTokenFile
from domain.attributes import ServerAttributes, Synchroniser
from domain.command_list import CommandList, parse_command_list
from domain.controller_profile import ControllerProfile, parse_device, parse_mount
from domain.controller_runtime import ControllerRuntime
from domain.controller_version import ControllerVersion
from domain.errors import Refused, Unavailable
from domain.files import Files
from domain.housekeeping import Housekeeping
from domain.log_level import LogLevel
from domain.ota import Source
from domain.ota_machine import AcceptRules, NoUpdates, SoftwareUpdate
from domain.ota_records import UpdateRecords
from domain.ota_replacement import Replacement, TrialRules
from domain.ota_sources import GitSource, PackageSource, RegistrySource
from domain.provisioning import Credentials, ProvisionKeys
from domain.publishing import Publisher
from domain.recording import Recorder
from domain.reporting import Auxiliary, LogLines, Reporter
from domain.rpc import Calls
from domain.rpc_books import Books
from domain.rpc_methods import MethodPorts, methods
from domain.rpc_status import StatusSources
from domain.services import Services
from domain.supervisor import NoController, Supervisor
from producers.controller_feed import ControllerFeed
from producers.controller_watch import ControllerWatch
from producers.drift_watch import DriftWatch
from producers.mqtt_listener import MqttListener
from settings import PROJECT, Settings
from tasks import periodic
from tasks.attributes import publish_attributes
from tasks.files import check_files
from tasks.ota import advance_update
from tasks.queue import huey as huey
from tasks.supervision import supervise_controller
from tasks.telemetry import records_stored, records_waiting

logger = logging.getLogger("gateway")

#: The version of a controller that is a command of the settings (TEG_CONTROLLER_RUNTIME=process).
LOCAL_VERSION = "local"


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
        runtime = _controller_runtime(settings, stack)
        supervisor: Supervisor | NoController = NoController()
        if runtime is not None:
            supervisor = Supervisor(
                runtime=runtime,
                heartbeat=inbox,
                state=StateTable(database),
                report=reporter,
                clock=clock,
                versions=_controller_version(settings, StateTable(database)),
                health_limit_s=settings.health_limit_s,
                start_grace_s=settings.start_grace_s,
            )
        log_lines = LogLines(table, clock, records_stored)
        stopping = threading.Event()
        ota: SoftwareUpdate | NoUpdates = NoUpdates()
        if runtime is not None and isinstance(supervisor, Supervisor):
            ota = _software_update(settings, database, session, reporter, inbox, runtime, supervisor, stopping)
        attributes = ServerAttributes(session)
        files = _remote_files(settings, StateTable(database), attributes, reporter, clock, inbox, supervisor)
        machine = HostMachine(settings.data_path, stopping)
        log_level = LogLevel(log_output.set_level, settings.log_level, clock)
        upkeep, books = ArchiveUpkeep(database), Books(CallLedger(database), clock)
        status_sources = StatusSources(
            versions=_versions(),
            started_s=clock.monotonic_s(),
            session=session,
            archive=upkeep,
            controller=supervisor,
            machine=machine,
            log=log_output,
            log_level=log_level,
            clock=clock,
        )
        calls = Calls(
            methods=methods(
                MethodPorts(
                    machine=machine,
                    controller=supervisor,
                    archive=upkeep,
                    files=files,
                    log=log_output,
                    log_level=log_level,
                    books=books,
                    status=status_sources,
                    run_command=_run_command(settings),
                )
            ),
            disabled=settings.rpc_disabled,
            session=session,
            books=books,
            clock=clock,
            stopping=stopping,
        )
        calls.recover()
        stack.callback(_flush, calls)
        services = Services(
            session=session,
            recorder=Recorder(inbox, table, records_stored),
            publisher=publisher,
            reporter=reporter,
            auxiliary=Auxiliary(
                session,
                supervisor,
                inbox,
                clock,
            ),
            log_lines=log_lines,
            synchroniser=Synchroniser(attributes, publisher.pacer, reporter, machine, clock, ota),
            housekeeping=Housekeeping(upkeep, clock, settings.archive_max_bytes, settings.archive_max_days),
            supervisor=supervisor,
            files=files,
            calls=calls,
            ota=ota,
            log_level=log_level,
            stopping=stopping,
        )
        log_output.forward_to(log_lines.add)
        feed = ControllerFeed(InboxChanges(settings.inbox_path), inbox, records_waiting)
        stack.callback(session.stop)
        stack.callback(feed.stop)
        drift_watch = DriftWatch(files, lambda: check_files())
        stack.callback(drift_watch.stop)
        if runtime is not None and isinstance(supervisor, Supervisor):
            watch = ControllerWatch(runtime, supervisor.next_look, lambda: supervise_controller())
            stack.callback(watch.stop)
        with huey.serving(services):
            session.start()
            feed.start()
            drift_watch.start()
            if runtime is not None:
                watch.start()
            logger.info(
                "gateway started: server %s:%d, data in %s", settings.tb_host, settings.tb_port, settings.data_path
            )
            yield services
            logger.info("gateway stopped")
            with suppress(Unavailable):
                log_lines.store()


def _remote_files(
    settings: Settings,
    state: StateTable,
    attributes: ServerAttributes,
    reporter: Reporter,
    clock: SystemClock,
    inbox: Inbox,
    supervisor: Supervisor | NoController,
) -> Files:
    queue = [Path(settings.queue_url.removeprefix("sqlite://"))] if settings.queue_url.startswith("sqlite:") else []
    command_list = [Path(settings.rpc_run_command)] if settings.rpc_run_command not in ("on", "off") else []
    others = (settings.access_token_path, settings.ca_cert, settings.controller_git_path, *queue, *command_list)
    own = gateway_own_paths(
        data=settings.data_path,
        controller_data=settings.controller_data_path,
        program=PROJECT,
        others=[other for other in others if other is not None],
    )
    return Files(
        source=attributes,
        report=reporter,
        state=state,
        store=ConfinedFiles(settings.file_roots, own),
        clock=clock,
        heartbeat=inbox,
        controller=supervisor,
        data_path=str(settings.controller_data_path),
    )


def _controller_runtime(settings: Settings, stack: ExitStack) -> ControllerRuntime | None:
    if settings.controller_runtime == "none":
        return None
    runtime: ControllerRuntime
    if settings.controller_runtime == "process":
        runtime = ProcessRuntime(
            settings.controller_command or "",
            settings.data_path / "controller_process",
            data_path=settings.controller_data_path,
            logs_path=settings.controller_logs_path,
            own_version=settings.default_controller_version or LOCAL_VERSION,
            environment=settings.controller_environment,
        )
    else:
        runtime = DockerEngine(settings.docker_host, _controller_profile(settings))
    stack.callback(runtime.close)
    return runtime


def _software_update(
    settings: Settings,
    database: Database,
    session: MqttSession,
    reporter: Reporter,
    inbox: Inbox,
    runtime: ControllerRuntime,
    supervisor: Supervisor,
    stopping: threading.Event,
) -> SoftwareUpdate:
    clock, directory = SystemClock(), settings.data_path / "ota"
    records = UpdateRecords(StateTable(database), reporter, runtime, supervisor)
    replacement = Replacement(
        runtime=runtime,
        versions=supervisor,
        heartbeat=inbox,
        records=records,
        clock=clock,
        rules=TrialRules(
            trial_s=settings.ota_trial_s, keys=ArchivedKeys(database) if settings.ota_require_keys else None
        ),
        pause=stopping.wait,
    )
    return SoftwareUpdate(
        records=records,
        replacement=replacement,
        sources={
            Source.GIT: GitSource(
                _controller_repository(settings, directory, stopping), runtime, settings.ota_require_signature
            ),
            Source.REGISTRY: RegistrySource(runtime),
            Source.PACKAGE: PackageSource(session, PackagesOnDisk(directory / "packages"), runtime),
        },
        runtime=runtime,
        hand=supervisor,
        clock=clock,
        rules=AcceptRules(registries=settings.ota_registries, signed_only=settings.ota_require_signature),
        stopping=stopping,
        wake=lambda: advance_update(),
    )


def _controller_repository(settings: Settings, directory: Path, stopping: threading.Event) -> GitRepository | None:
    if settings.controller_git_path is None:
        return None
    return GitRepository(
        settings.controller_git_path,
        settings.controller_docker_context,
        settings.controller_dockerfile,
        directory / "checkouts",
        stopping=stopping.is_set,
    )


def _controller_profile(settings: Settings) -> ControllerProfile:
    if settings.controller_privileged:
        logger.warning("TEG_CONTROLLER_PRIVILEGED=on: the controller may do everything that this machine can")
    return ControllerProfile(
        data_path=settings.controller_data_path,
        logs_path=settings.controller_logs_path,
        memory_bytes=settings.controller_memory_bytes,
        pids=settings.controller_pids,
        privileged=settings.controller_privileged,
        network=settings.controller_network,
        devices=tuple(map(parse_device, settings.controller_devices)),
        mounts=tuple(map(parse_mount, settings.controller_mounts)),
        environment=settings.controller_environment,
    )


def _controller_version(settings: Settings, state: StateTable) -> ControllerVersion:
    default = settings.default_controller_version
    if settings.controller_runtime == "process":
        default = default or LOCAL_VERSION
    return ControllerVersion(state, settings.data_path / "last_launched_controller_version.txt", default)


def _run_command(settings: Settings) -> str | CommandList:
    """'off', 'on', or the allow-list; a list with an error in it is a wrong setting."""
    if settings.rpc_run_command in ("off", "on"):
        return settings.rpc_run_command
    try:
        return parse_command_list(Path(settings.rpc_run_command).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, Refused) as problem:
        raise Refused(f"TEG_RPC_RUN_COMMAND={settings.rpc_run_command}: {problem}") from problem


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("teg-gateway", "huey", "paho-mqtt", "docker"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _flush(calls: Calls) -> None:
    with suppress(Unavailable):
        calls.tend()


def _log_output(settings: Settings, stack: ExitStack) -> LogOutput:
    output = LogOutput(settings.log_level)
    output.add_secret(settings.provision_secret)
    output.install()
    stack.callback(output.remove)
    return output


def _database(settings: Settings, stack: ExitStack) -> Database:
    database = Database(settings.data_path / "gateway.db")
    stack.callback(database.close)
    database.open(records.SCHEMA, state.SCHEMA, ledger.SCHEMA)
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
