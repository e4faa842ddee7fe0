"""A process that applies remote files on command, in a child of its own that can be traced and killed.

Commands on stdin, one a line: `<folder> <online|offline>`. The child stops itself before the first step, so that strace
can be attached and counts from there; the exit of the child is printed.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from teg.adapters.confined_files import ConfinedFiles
from teg.adapters.gateway_db import state
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.state import StateTable
from teg.domain.errors import NotConnected, Unavailable
from teg.domain.files.reconciler import Files
from tests.support.remote_files import Controller, HandClock


class Server:
    """Answers from `server.json`; reports are appended to `reports.jsonl`."""

    def __init__(self, folder: Path, online: bool) -> None:
        self._reports = folder / "reports.jsonl"
        self._shared = orjson.loads((folder / "server.json").read_bytes())
        self._online = online

    def request_attributes(
        self, client_keys: Sequence[str] = (), shared_keys: Sequence[str] = ()
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        if not self._online:
            raise NotConnected("offline")
        return {}, {key: self._shared[key] for key in shared_keys if key in self._shared}

    def telemetry(self, values: Mapping[str, Any], ts_ms: int | None = None) -> None: ...

    def attributes(self, values: Mapping[str, Any]) -> None:
        with self._reports.open("ab") as reports:
            reports.write(orjson.dumps(dict(values)) + b"\n")


def apply(folder: Path, online: bool) -> None:
    database = Database(folder / "gateway.db")
    database.open(state.SCHEMA)
    root, server = folder / "root", Server(folder, online)
    clock, controller = HandClock(), Controller()
    clock.seconds = float((folder / "clock").read_text())  # so that a test moves it between processes
    files = Files(
        source=server,
        report=server,
        state=StateTable(database),
        store=ConfinedFiles([root]),
        clock=clock,
        heartbeat=controller,
        controller=controller,
        data_path=str(root),
    )
    try:
        files.reconcile()
    except Unavailable:
        files.check()
    database.close()


def main() -> None:
    for line in sys.stdin:
        folder, online = line.split()
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            apply(Path(folder), online == "online")
            os._exit(0)
        os.waitpid(child, os.WUNTRACED)
        print("stopped", child, flush=True)
        print("ended", os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
