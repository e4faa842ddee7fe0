"""The methods an operator can call: name, description as `list` shows it, and how a call becomes a plan.

Texts and order of the first nine are the reference gateway's; docs/rpc.md describes each for operators.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.ports import Controller
from teg.domain.rpc import parameters
from teg.domain.rpc.command_allowlist import CommandList
from teg.domain.rpc.journal import CallJournal, call_lines
from teg.domain.rpc.log_level import LogLevel
from teg.domain.rpc.ports import ArchiveControl, LogRing, Machine
from teg.domain.rpc.status import StatusSources, status

POWER_SPACING_S = 300

#: Hears, after each slice of a long work, how many rows are done so far.
Progress = Callable[[int], None]


class Group(StrEnum):
    """Calls of one group never run side by side; calls of different groups never wait for each other."""

    COMMAND = "run_command"
    LOOK = "a look at the state"
    DATA = "work on the archive or the files"
    CONTROLLER = "work on the controller"
    POWER = "reboot, shutdown or exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """What is to be done for one call with checked parameters.

    Without `group` it is quick, reads memory only, and may be done again. `once` keeps the journal that make it
    at-most-once. `announce` is answered first, and `run` follows the acknowledgement of that answer. Work in slices
    has `run_telling`, too: the same, for who wants to hear how far it is.
    """

    run: Callable[[], Any]
    run_telling: Callable[[Progress], Any] | None = None
    group: Group | None = None
    once: bool = False
    announce: str | None = None
    spacing_s: int = 0


@dataclass(frozen=True, slots=True)
class Method:
    """`plan` checks the parameters; it raises Refused with the text to answer."""

    name: str
    description: str
    plan: Callable[[Any], CallPlan]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodPorts:
    """`run_command` is 'off', 'on', or the allow-list; `init_files` is `Files.init`."""

    machine: Machine
    controller: Controller
    archive: ArchiveControl
    init_files: Callable[[], None]
    log: LogRing
    log_level: LogLevel
    journal: CallJournal
    status: StatusSources
    run_command: str | CommandList


def methods(ports: MethodPorts) -> dict[str, Method]:
    """Everything that can be called, in the order of `list`, which itself comes last and is not in its answer."""
    machine = ports.machine
    listed = [
        Method("reboot", "Reboot the device", _power(machine, "reboot", machine.reboot, "OK - Rebooting")),
        Method("shutdown", "Shutdown the device", _power(machine, "shutdown", machine.shutdown, "OK - Shutting down")),
        Method("exit", "Exits the gateway process (triggers gateway restart)", _exit(ports)),
        Method("ping", "Ping the device (returns 'pong' reply)", lambda _: CallPlan(run=lambda: "Pong")),
        Method(
            "init_files",
            "Initialize file-related client attributes (FILE_HASHES, FILE_READ_*)",
            lambda _: CallPlan(run=lambda: _init_files(ports.init_files), group=Group.DATA, once=True),
        ),
        Method("restart_controller", "Restart the controller docker container", _restart_controller(ports)),
        Method(
            "run_command",
            "Run arbitrary command ({command: list [str], timeout_s: int [default 30s]}) - use with caution!",
            _run_command(ports),
        ),
        _republish_method(ports.archive),
        Method(
            "archive_discard_messages",
            "Discard messages from archive ({start_timestamp_ms: int, end_timestamp_ms: int})",
            _discard(ports.archive),
        ),
        Method(
            "status",
            "Show versions, uptime, connection, backlog, disk, controller and last errors",
            lambda _: CallPlan(run=lambda: status(ports.status), group=Group.LOOK),
        ),
        Method(
            "get_logs",
            "Show the last log lines ({source: 'gateway' | 'controller' | 'calls', lines: int [default 50]})",
            _get_logs(ports),
        ),
        Method(
            "archive_stats",
            "Count what the archive holds ({start_timestamp_ms: int, end_timestamp_ms: int} [optional])",
            _stats(ports.archive),
        ),
        _dead_letters_method(ports.archive),
        Method(
            "set_log_level",
            "Set the log level ({level: 'DEBUG' | 'INFO' | 'WARNING' | 'ERROR', minutes: int [optional]})",
            _set_log_level(ports.log_level),
        ),
    ]
    lines = ["Available RPC methods:", *(f"{method.name}: {method.description}" for method in listed)]
    listed.append(Method("list", "List the methods", lambda _: CallPlan(run=lambda: lines)))
    return {method.name: method for method in listed}


def _power(machine: Machine, action: str, act: Callable[[], object], announce: str) -> Callable[[Any], CallPlan]:
    """`reboot` and `shutdown`: refused at once where the host does not let us."""

    def plan(_: Any) -> CallPlan:
        if problem := machine.power_problem(action):
            raise Refused(f"{action} is not possible here: {problem}")
        return CallPlan(run=act, group=Group.POWER, once=True, announce=announce, spacing_s=POWER_SPACING_S)

    return plan


def _exit(ports: MethodPorts) -> Callable[[Any], CallPlan]:
    exits = CallPlan(
        run=ports.machine.exit_gateway,
        group=Group.POWER,
        once=True,
        announce="OK - Exiting",
        spacing_s=POWER_SPACING_S,
    )
    return lambda _: exits


def _init_files(init: Callable[[], None]) -> str:
    init()
    return "Files client attributes initialized"


#: `controller_state` values (teg/domain/supervision/report.py) in which a restart cannot work, and what to tell.
NO_RESTART = {
    "not supervised": "no controller is supervised here (TEG_CONTROLLER_RUNTIME=none)",
    "no version": "no controller version is known yet: assign one on the server",
    "engine unreachable": "the container engine cannot be reached",
}


def _restart_controller(ports: MethodPorts) -> Callable[[Any], CallPlan]:
    """Answered first, because a stop takes up to a minute and its caller waits ten seconds."""
    restart = CallPlan(
        run=lambda: ports.controller.restart("asked for by RPC"),
        group=Group.CONTROLLER,
        once=True,
        announce="OK - Restarting Controller",
    )

    def plan(_: Any) -> CallPlan:
        if problem := NO_RESTART.get(str(ports.controller.summary().get("controller_state"))):
            raise Refused(f"the controller cannot be restarted: {problem}")
        return restart

    return plan


def _run_command(ports: MethodPorts) -> Callable[[Any], CallPlan]:
    def plan(params: Any) -> CallPlan:
        command = _command(ports.run_command, params)
        return CallPlan(run=lambda: _run(ports.machine, command), group=Group.COMMAND, once=True)

    return plan


def _command(allowed: str | CommandList, params: Any) -> parameters.Command:
    if isinstance(allowed, CommandList):
        return allowed.command(parameters.parse_named_call(params))
    if allowed != "on":
        raise Refused(
            "Running command failed: run_command is switched off on this gateway; to enable it set"
            " TEG_RPC_RUN_COMMAND to 'on', or to the path of an allow-list file, and restart the gateway"
        )
    return parameters.parse_command(params)


def _run(machine: Machine, command: parameters.Command) -> str:
    argv = list(command.argv)
    result = machine.run(argv, command.timeout_s)
    if result.timed_out:
        raise Refused(
            f"Error running command '{argv}': Timeout after {command.timeout_s} seconds. Output: {result.output}"
        )
    return f"OK - Command executed - Command '{argv}' exited with code {result.exit_code}. Output: {result.output}"


def archive_orders(archive: ArchiveControl) -> dict[str, Method]:
    """What a person on the device may ask for, too (`local_orders`)."""
    return {method.name: method for method in (_republish_method(archive), _dead_letters_method(archive))}


def _republish_method(archive: ArchiveControl) -> Method:
    return Method(
        "archive_republish_messages",
        "Republish messages from archive ({start_timestamp_ms: int, end_timestamp_ms: int})",
        _republish(archive),
    )


def _dead_letters_method(archive: ArchiveControl) -> Method:
    return Method(
        "dead_letters",
        "Show, retry or drop messages that were set aside"
        " ({action: 'list' | 'retry' | 'drop', ids: list [int] | 'all', limit: int, before_id: int})",
        _dead_letters(archive),
    )


def _republish(archive: ArchiveControl) -> Callable[[Any], CallPlan]:
    def run(span: parameters.Span, keys: tuple[str, ...] | None, progress: Progress) -> str:
        with _archive_available("Republishing"):
            count = archive.mark_for_publishing(span.start_ms, span.end_ms, progress, keys)
        return f"OK - {count} messages republished - {span.start_ms} -> {span.end_ms}"

    def plan(params: Any) -> CallPlan:
        span, keys = parameters.parse_republish(params), parameters.parse_republished_keys(params)
        return CallPlan(
            run=lambda: run(span, keys, lambda _: None),
            run_telling=lambda progress: run(span, keys, progress),
            group=Group.DATA,
            once=True,
        )

    return plan


def _discard(archive: ArchiveControl) -> Callable[[Any], CallPlan]:
    def run(span: parameters.Span) -> str:
        with _archive_available("Discarding"):
            count = archive.discard(span.start_ms, span.end_ms)
            kept = archive.kept(span.start_ms, span.end_ms)
        answer = f"OK - {count} messages discarded - {span.start_ms} -> {span.end_ms}"
        return f"{answer} ({kept} kept: not yet proven to be stored on the server)" if kept else answer

    def plan(params: Any) -> CallPlan:
        span = parameters.parse_discard(params)
        return CallPlan(run=lambda: run(span), group=Group.DATA, once=True)

    return plan


@contextmanager
def _archive_available(doing: str) -> Iterator[None]:
    """The reference's words for a database that does not answer."""
    try:
        yield
    except Unavailable as reason:
        raise Unavailable(f"{doing} archived messages failed: archive database unavailable") from reason
    except Refused as reason:
        raise Refused(f"{doing} archived messages failed: {reason}") from reason


def _get_logs(ports: MethodPorts) -> Callable[[Any], CallPlan]:
    def plan(params: Any) -> CallPlan:
        request = parameters.parse_logs(params)
        if request.source == "controller":
            return CallPlan(run=lambda: ports.controller.logs(request.lines), group=Group.CONTROLLER)
        if request.source == "calls":
            return CallPlan(run=lambda: call_lines(ports.journal.recent(request.lines)), group=Group.LOOK)
        return CallPlan(run=lambda: ports.log.recent(request.lines))

    return plan


def _stats(archive: ArchiveControl) -> Callable[[Any], CallPlan]:
    def plan(params: Any) -> CallPlan:
        span = parameters.parse_stats(params)
        start_ms, end_ms = (span.start_ms, span.end_ms) if span else (None, None)
        return CallPlan(run=lambda: dict(archive.stats(start_ms, end_ms)), group=Group.DATA)

    return plan


def _dead_letters(archive: ArchiveControl) -> Callable[[Any], CallPlan]:
    def plan(params: Any) -> CallPlan:
        request = parameters.parse_dead_letters(params)
        if request.action == "list":
            found = lambda: {"dead_letters": list(archive.dead_letters(request.limit, request.before_id))}  # noqa: E731
            return CallPlan(run=found, group=Group.DATA)
        if request.action == "retry":
            retry = lambda: f"OK - {archive.retry_dead_letters(request.ids)} dead letters queued again"  # noqa: E731
            return CallPlan(run=retry, group=Group.DATA, once=True)
        drop = lambda: f"OK - {archive.drop_dead_letters(request.ids)} dead letters dropped"  # noqa: E731
        return CallPlan(run=drop, group=Group.DATA, once=True)

    return plan


def _set_log_level(log_level: LogLevel) -> Callable[[Any], CallPlan]:
    def run(request: parameters.LevelRequest) -> str:
        log_level.set(request.level, request.minutes)
        until = f"for {request.minutes} minutes" if request.minutes else "until the next restart"
        return f"OK - Log level {request.level} {until}"

    def plan(params: Any) -> CallPlan:
        request = parameters.parse_level(params)
        return CallPlan(run=lambda: run(request))

    return plan
