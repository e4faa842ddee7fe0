"""Remote calls and remote files: what an operator of the server can do here."""

import logging
import platform
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tasks.queue import huey
from teg.adapters.confined_files import ConfinedFiles, gateway_own_paths
from teg.adapters.host.machine import HostMachine
from teg.adapters.log_handlers import LogOutput
from teg.domain.errors import Refused
from teg.domain.files.reconciler import Files
from teg.domain.ports import Clock
from teg.domain.rpc.command_allowlist import CommandList, parse_command_list
from teg.domain.rpc.dispatcher import RpcDispatcher
from teg.domain.rpc.journal import CallJournal
from teg.domain.rpc.log_level import LogLevel
from teg.domain.rpc.methods import MethodPorts, methods
from teg.domain.rpc.status import StatusSources
from teg.domain.server.attributes import Synchroniser
from teg.settings import PROGRAM, Settings
from teg.wiring.controller import ControllerSide
from teg.wiring.server import ServerSide, delivery_summary
from teg.wiring.storage import Storage

logger = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSide:
    machine: HostMachine
    files: Files
    calls: RpcDispatcher
    journal: CallJournal
    status: StatusSources


def build_operator_side(
    settings: Settings,
    output: LogOutput,
    log_level: LogLevel,
    storage: Storage,
    server: ServerSide,
    controller: ControllerSide,
    clock: Clock,
    stopping: threading.Event,
) -> OperatorSide:
    machine = HostMachine(settings.data_path, stopping)
    files = _files(settings, storage, server, controller, clock)
    journal = CallJournal(storage.calls, clock)
    status = StatusSources(
        versions=_versions(),
        started_s=clock.monotonic_s(),
        session=server.session,
        link=lambda: server.policy.history,
        archive=storage.maintenance,
        controller=controller.supervisor,
        machine=machine,
        log=output,
        log_level=log_level,
        clock=clock,
        delivery=delivery_summary(storage, server),
        troubles=huey.troubles.current,
        inbox_trouble=lambda: storage.inbox.trouble,
    )
    ports = MethodPorts(
        machine=machine,
        controller=controller.supervisor,
        archive=storage.maintenance,
        init_files=files.init,
        log=output,
        log_level=log_level,
        journal=journal,
        status=status,
        run_command=_run_command(settings),
    )
    calls = RpcDispatcher(
        methods=methods(ports),
        disabled=settings.rpc_disabled,
        session=server.session,
        journal=journal,
        clock=clock,
        stopping=stopping,
    )
    return OperatorSide(machine=machine, files=files, calls=calls, journal=journal, status=status)


def build_synchroniser(
    storage: Storage, server: ServerSide, controller: ControllerSide, operator: OperatorSide, clock: Clock
) -> Synchroniser:
    return Synchroniser(
        attributes=server.attributes,
        pacer=server.publisher.pacer,
        state=storage.state,
        report=server.reporter,
        host=operator.machine,
        clock=clock,
        software=controller.updates,
    )


def recover_from_last_life(operator: OperatorSide) -> None:
    """End what run_command left behind, and note which calls were interrupted; before any new call."""
    if leftovers := operator.machine.end_leftover_commands():
        logger.warning("ended %d processes of commands that the last process left behind", leftovers)
    operator.calls.recover()


def _files(settings: Settings, storage: Storage, server: ServerSide, controller: ControllerSide, clock: Clock) -> Files:
    return Files(
        source=server.attributes,
        report=server.reporter,
        state=storage.state,
        store=ConfinedFiles(settings.file_roots, _own_paths(settings)),
        clock=clock,
        heartbeat=storage.inbox,
        controller=controller.supervisor,
        data_path=str(settings.controller_data_path),
    )


def _own_paths(settings: Settings) -> tuple[str, ...]:
    """What no remote file may ever touch, even inside an allowed root."""
    queue = [Path(settings.queue_url.removeprefix("sqlite://"))] if settings.queue_url.startswith("sqlite:") else []
    command_list = [Path(settings.rpc_run_command)] if settings.rpc_run_command not in ("on", "off") else []
    legacy = [settings.legacy_data_path / name for name in ("gateway_archive.db", "gateway_logs_buffer.db")]
    others = (
        *legacy,
        settings.access_token_path,
        settings.ca_cert,
        settings.controller_git_path,
        *queue,
        *command_list,
    )
    return gateway_own_paths(
        data=settings.data_path,
        controller_data=settings.controller_data_path,
        program=PROGRAM,
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
