"""The composition root: picks the concrete classes, opens them before the first worker and closes them after the last.

Start the gateway with `huey_consumer gateway.huey`. Nothing imports this module but the consumer and the console. The
parts that stand below calls and files are made in `composition/`.
"""

import logging
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from importlib import metadata
from pathlib import Path

from producers.controller_feed import ControllerFeed
from producers.controller_watch import ControllerWatch
from producers.drift_watch import DriftWatch
from tasks import periodic
from tasks.files import check_files
from tasks.queue import huey as huey
from tasks.services import Services
from tasks.supervision import supervise_controller
from tasks.telemetry import records_stored, records_waiting
from teg.adapters.confined_files import ConfinedFiles, gateway_own_paths
from teg.adapters.gateway_db.rpc_journal import RpcJournalTable
from teg.adapters.host.machine import HostMachine
from teg.adapters.inbox.changes import InboxChanges
from teg.domain.errors import Refused, Unavailable
from teg.domain.files.reconciler import Files
from teg.domain.rpc.command_allowlist import CommandList, parse_command_list
from teg.domain.rpc.dispatcher import RpcDispatcher
from teg.domain.rpc.journal import CallJournal
from teg.domain.rpc.methods import MethodPorts, methods
from teg.domain.rpc.status import StatusSources
from teg.domain.server.attributes import Synchroniser
from teg.domain.supervision.supervisor import Supervisor
from teg.domain.telemetry.ingest import Recorder
from teg.domain.telemetry.reporting import Auxiliary
from teg.settings import PROJECT, InvalidSettings, Settings
from teg.wiring.controller import ControllerParts

logger = logging.getLogger("gateway")


@contextmanager
def lifespan(settings: Settings) -> Iterator[Services]:
    """Open everything, yield the services, and close in reverse; only wrong configuration ends the start (status 1)."""
    with ExitStack() as stack:
        try:
            parts = Parts(settings, stack)
            services = parts.services
        except (InvalidSettings, Refused) as problem:
            raise SystemExit(str(problem)) from problem
        with huey.serving(services):
            parts.start_producers()
            logger.info(
                "gateway started: server %s:%d, data in %s", settings.tb_host, settings.tb_port, settings.data_path
            )
            yield services
            logger.info("gateway stopped")
            parts.save_what_waits()


class Parts(ControllerParts):
    """Each part is made when first asked for, once; what has to be closed is noted on the stack as it is opened."""

    @cached_property
    def services(self) -> Services:
        self.log_output.forward_to(self.log_lines.add)
        if leftovers := self.machine.end_leftover_commands():
            logger.warning("ended %d processes of commands that the last process left behind", leftovers)
        self.calls.recover()
        return Services(
            session=self.session,
            recorder=Recorder(self.inbox, self.table, records_stored),
            publisher=self.publisher,
            reporter=self.reporter,
            auxiliary=Auxiliary(self.session, self.supervisor, self.inbox, self.clock),
            log_lines=self.log_lines,
            synchroniser=self._synchroniser(),
            retention=self._retention(),
            legacy_import=self._legacy_import(),
            supervisor=self.supervisor,
            files=self.files,
            calls=self.calls,
            ota=self.ota,
            log_level=self.log_level,
            stopping=self.stopping,
        )

    def start_producers(self) -> None:
        """The session last to be stopped: the others may still want to say something."""
        self._stack.callback(self.session.stop)
        self.session.start()
        producers: list[ControllerFeed | DriftWatch | ControllerWatch] = [
            ControllerFeed(InboxChanges(self._settings.inbox_path), self.inbox, records_waiting),
            DriftWatch(self.files, lambda: check_files()),
        ]
        if self.runtime is not None and isinstance(self.supervisor, Supervisor):
            producers.append(ControllerWatch(self.runtime, self.supervisor.next_check, lambda: supervise_controller()))
        for producer in producers:
            self._stack.callback(producer.stop)
            producer.start()

    def save_what_waits(self) -> None:
        """Before the database closes: the last log lines and the journal of the quick calls."""
        for save in (self.log_lines.store, self.calls.tend):
            with suppress(Unavailable):
                save()

    # --- calls and files -----------------------------------------------------------------------------------

    @cached_property
    def machine(self) -> HostMachine:
        return HostMachine(self._settings.data_path, self.stopping)

    @cached_property
    def journal(self) -> CallJournal:
        return CallJournal(RpcJournalTable(self.database), self.clock)

    @cached_property
    def calls(self) -> RpcDispatcher:
        return RpcDispatcher(
            methods=methods(self._method_ports()),
            disabled=self._settings.rpc_disabled,
            session=self.session,
            journal=self.journal,
            clock=self.clock,
            stopping=self.stopping,
        )

    def _method_ports(self) -> MethodPorts:
        return MethodPorts(
            machine=self.machine,
            controller=self.supervisor,
            archive=self.maintenance,
            files=self.files,
            log=self.log_output,
            log_level=self.log_level,
            journal=self.journal,
            status=self._status_sources(),
            run_command=_run_command(self._settings),
        )

    def _status_sources(self) -> StatusSources:
        return StatusSources(
            versions=_versions(),
            started_s=self.clock.monotonic_s(),
            session=self.session,
            archive=self.maintenance,
            controller=self.supervisor,
            machine=self.machine,
            log=self.log_output,
            log_level=self.log_level,
            clock=self.clock,
        )

    @cached_property
    def files(self) -> Files:
        return Files(
            source=self.attributes,
            report=self.reporter,
            state=self.state,
            store=ConfinedFiles(self._settings.file_roots, _own_paths(self._settings)),
            clock=self.clock,
            heartbeat=self.inbox,
            controller=self.supervisor,
            data_path=str(self._settings.controller_data_path),
        )

    def _synchroniser(self) -> Synchroniser:
        return Synchroniser(self.attributes, self.publisher.pacer, self.reporter, self.machine, self.clock, self.ota)


def _own_paths(settings: Settings) -> tuple[str, ...]:
    """What no remote file may ever touch, even inside an allowed root."""
    queue = [Path(settings.queue_url.removeprefix("sqlite://"))] if settings.queue_url.startswith("sqlite:") else []
    command_list = [Path(settings.rpc_run_command)] if settings.rpc_run_command not in ("on", "off") else []
    others = (settings.access_token_path, settings.ca_cert, settings.controller_git_path, *queue, *command_list)
    return gateway_own_paths(
        data=settings.data_path,
        controller_data=settings.controller_data_path,
        program=PROJECT,
        others=[other for other in others if other is not None],
    )


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


huey.lifespan = lifespan
huey.timetable = periodic.TIMETABLE
