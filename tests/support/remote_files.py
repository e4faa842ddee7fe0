"""A device with remote files on a real temporary folder, in front of a server that is a few lines long."""

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from tasks.services import Services
from teg.adapters.confined_files import ConfinedFiles
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.files.ports import FileStore
from teg.domain.files.reconciler import Files
from tests.support.states import MemoryState


class Server:
    """The attributes of one device, as ThingsBoard keeps them; also the report that fills them."""

    def __init__(self) -> None:
        self.shared: dict[str, Any] = {}
        self.client: dict[str, Any] = {}
        self.online = True
        self.requests: list[tuple[str, ...]] = []
        self.reports: list[dict[str, Any]] = []
        self.before_answer: Callable[[], None] = lambda: None

    def request_attributes(
        self, client_keys: Sequence[str] = (), shared_keys: Sequence[str] = ()
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        if not self.online:
            raise NotConnected("offline")
        self.requests.append((*client_keys, *shared_keys))
        answer = (
            {key: copy.deepcopy(self.client[key]) for key in client_keys if key in self.client},
            {key: copy.deepcopy(self.shared[key]) for key in shared_keys if key in self.shared},
        )
        self.before_answer()
        return answer

    def telemetry(self, values: Mapping[str, Any], ts_ms: int | None = None) -> None:
        raise AssertionError("files report attributes only")

    def attributes(self, values: Mapping[str, Any]) -> None:
        sent: dict[str, Any] = orjson.loads(orjson.dumps(dict(values)))
        self.reports.append(sent)
        self.client |= sent


class HandClock:
    """Time moves only when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.boot = "boot-1"
        self._boot_ms = 1_767_225_600_000

    def now_ms(self) -> int:
        return self._boot_ms + int(self.seconds * 1000)

    def monotonic_s(self) -> float:
        return self.seconds

    def boot_id(self) -> str:
        return self.boot

    def advance(self, seconds: float) -> None:
        self.seconds += seconds

    def reboot(self) -> None:
        self._boot_ms = self.now_ms()
        self.boot, self.seconds = self.boot + "'", 20.0


class Controller:
    """Counts its restarts; `problem` is what the next ones raise."""

    def __init__(self) -> None:
        self.restarts: list[str] = []
        self.problem: Unavailable | Refused | None = None
        self.heartbeat_ms: int | None = None
        self.locked = False

    def restart(self, reason: str) -> None:
        if self.problem:
            raise self.problem
        self.restarts.append(reason)

    def last_heartbeat_ms(self) -> int | None:
        if self.locked:
            raise Unavailable("inbox is locked")
        return self.heartbeat_ms

    def running_since_ms(self) -> int | None:
        return 1_767_225_600_000

    def summary(self) -> Mapping[str, Any]:
        return {"controller_state": "running", "controller_version": "v1"}

    def logs(self, lines: int) -> list[str]:
        if self.problem:
            raise self.problem
        return ["first line", "last line"][-lines:]


class Device:
    """`files` can be started anew (a new process) over the same state and disk."""

    def __init__(self, root: Path, protected: Sequence[str] = ()) -> None:
        self.root = root
        self.server = Server()
        self.state = MemoryState()
        self.clock = HandClock()
        self.controller = Controller()
        self.store: FileStore = ConfinedFiles([root], protected)
        self.restart_process()

    def restart_process(self) -> None:
        self.files = Files(
            source=self.server,
            report=self.server,
            state=self.state,
            store=self.store,
            clock=self.clock,
            heartbeat=self.controller,
            controller=self.controller,
            data_path=str(self.root),
        )

    def reboot(self) -> None:
        self.clock.boot += "+"
        self.clock.seconds = 5.0
        self.restart_process()

    def define(self, key: str, name: str | None = None, **fields: Any) -> Path:
        """Set one definition on the server; returns where its file is."""
        path = f"$DATA_PATH/{name or key}"
        definitions = self.server.shared.get("FILES", {})
        self.server.shared["FILES"] = definitions | {key: {"path": path} | fields}
        return self.root / (name or key)

    def wait(self, seconds: float) -> None:
        """Let time pass as the drift watch would see it."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            self.clock.seconds += 1
            if self.files.take_due():
                self.files.check()

    @property
    def hashes(self) -> Any:
        return self.server.client.get("FILE_HASHES")

    def read(self, key: str) -> Any:
        return self.server.client.get(f"FILE_READ_{key}")

    def error(self, key: str) -> Any:
        return self.server.client.get(f"FILE_ERROR_{key}", "")


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def services_with(**given: Any) -> Services:
    """The record of services with only what a flow needs; everything else is None."""
    empty: dict[str, Any] = {
        field.name: None
        for field in dataclasses.fields(Services)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return Services(**(empty | given))


class FailingStore:
    """A store whose writes fail while `problem` is set."""

    def __init__(self, inner: FileStore) -> None:
        self._inner = inner
        self.problem: Unavailable | Refused | None = None
        self.writes = 0
        self.look = inner.look
        self.remove = inner.remove
        self.clean = inner.clean

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        self.writes += 1
        if self.problem:
            raise self.problem
        self._inner.write(path, content, mode)
