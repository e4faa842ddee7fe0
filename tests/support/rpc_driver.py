"""A process that takes remote calls on command, each in a child of its own that can be traced and killed.

Commands on stdin, one a line: `<folder> <method>`. The child stops itself before the first step, so that strace can be
attached and counts from there; the exit of the child is printed. Answers and effects are lines in files.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from teg.adapters.clock import SystemClock
from teg.adapters.gateway_db import rpc_journal
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.rpc_journal import RpcJournalTable
from teg.domain.ports import CommandResult
from teg.domain.rpc.dispatcher import RpcDispatcher
from teg.domain.rpc.journal import CallJournal
from teg.domain.rpc.methods import MethodPorts, methods
from teg.domain.server.wire import RpcRequest

PARAMS: dict[str, Any] = {"run_command": {"command": ["true"]}}


class Outside:
    """Session and machine: every message and every effect is one line, written in one system call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def publish(self, topic: str, payload: bytes, on_done: Callable[[bool], None]) -> None:
        self._note("answers", payload)
        on_done(True)

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        self._note("answers", payload)

    def power_problem(self, action: str) -> None:
        return None

    def reboot(self) -> None:
        self._note("effects", b"reboot")

    def shutdown(self) -> None:
        self._note("effects", b"shutdown")

    def exit_gateway(self) -> None:
        self._note("effects", b"exit")

    def run(self, argv: Sequence[str], timeout_s: float, output_cap_bytes: int = 0) -> CommandResult:
        self._note("effects", b"run")
        return CommandResult(0, "", False, False)

    def _note(self, name: str, line: bytes) -> None:
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, line + b"\n")
        os.close(descriptor)


def work(folder: Path, method: str) -> None:
    """One process life: open the journal, look what was interrupted, take the call."""
    database = Database(folder / "gateway.db")
    database.open(rpc_journal.SCHEMA)
    outside: Any = Outside(folder)
    clock = SystemClock()
    journal = CallJournal(RpcJournalTable(database), clock)
    ports = cast(MethodPorts, SimpleNamespace(machine=outside, journal=journal, run_command="on"))
    for unused in ("controller", "archive", "files", "log", "log_level", "status"):
        setattr(ports, unused, None)
    calls = RpcDispatcher(
        methods=methods(ports),
        disabled=frozenset(),
        session=outside,
        journal=journal,
        clock=clock,
        stopping=threading.Event(),
    )
    calls.recover()
    request = RpcRequest(0, method, PARAMS.get(method))
    deadline_ms = calls.take(request)
    assert deadline_ms is not None
    calls.run(request, deadline_ms)
    database.close()


def main() -> None:
    for line in sys.stdin:
        folder, method = line.split()
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            work(Path(folder), method)
            os._exit(0)
        os.waitpid(child, os.WUNTRACED)
        print("stopped", child, flush=True)
        print("ended", os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
