"""A gateway's remote calls with everything outside replaced by a few lines, and the real journal on a real file."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson

from tasks.queue import huey
from tasks.rpc import handle_rpc, refuse_rpc
from tasks.services import Services
from teg.adapters.gateway_db import rpc_journal
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.rpc_journal import RpcJournalTable
from teg.domain.errors import NotConnected, Unavailable
from teg.domain.ports import CommandResult
from teg.domain.rpc.command_allowlist import CommandList
from teg.domain.rpc.dispatcher import RpcDispatcher
from teg.domain.rpc.journal import CallJournal
from teg.domain.rpc.log_level import LogLevel
from teg.domain.rpc.methods import MethodPorts, methods
from teg.domain.rpc.status import StatusSources
from teg.domain.server.reconnect import LinkHistory
from teg.domain.server.wire import RpcRequest
from tests.support.acknowledgements import Acknowledgements

#: A day of the archive, both ends included.
RANGE = {"start_timestamp_ms": 1_767_225_600_000, "end_timestamp_ms": 1_767_312_000_000}


class FakeClock:
    def __init__(self) -> None:
        self.wall_ms = 1_767_225_600_000
        self.uptime_s = 10_000.0
        self.boot = "boot-1"

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_s(self) -> float:
        return self.uptime_s

    def boot_id(self) -> str:
        return self.boot

    def advance(self, seconds: float) -> None:
        self.uptime_s += seconds
        self.wall_ms += round(seconds * 1000)

    def reboot(self, uptime_s: float = 30.0) -> None:
        self.boot += "'"
        self.uptime_s = uptime_s
        self.wall_ms += round(uptime_s * 1000)


class FakeSession(Acknowledgements):
    """Keeps what was sent; `refusals` makes the next deliveries fail, `on_deliver` looks at the moment of each."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, Any]] = []
        self.sizes: list[int] = []
        self.refusals: list[Exception] = []
        self.on_deliver: Callable[[], object] = lambda: None

    def publish(self, topic: str, payload: bytes, on_done: Callable[[bool], None]) -> None:
        if not self.connected:
            raise NotConnected("no session")
        body = orjson.loads(payload)
        assert body.keys() == {"message"}
        self.sent.append((topic, body["message"]))
        self.sizes.append(len(payload))
        self.settle(on_done)

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.publish(topic, payload, lambda _: None)
        self.on_deliver()

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        raise AssertionError("calls never ask")

    def subscribe(self, topic_filter: str) -> None:
        raise AssertionError("calls never subscribe")


class FakeMachine:
    """Notes what it was told; `at_action` looks at the moment of each action."""

    def __init__(self) -> None:
        self.actions: list[str] = []
        self.runs: list[tuple[list[str], float]] = []
        self.result = CommandResult(0, "done\n", False, False)
        self.problem: str | None = None
        self.broken: Exception | None = None
        self.at_action: Callable[[], object] = lambda: None

    def _act(self, action: str) -> None:
        self.at_action()
        self.actions.append(action)
        if self.broken:
            raise self.broken

    def reboot(self) -> None:
        self._act("reboot")

    def shutdown(self) -> None:
        self._act("shutdown")

    def exit_gateway(self) -> None:
        self._act("exit")

    def power_problem(self, action: str) -> str | None:
        return self.problem

    def run(self, argv: Sequence[str], timeout_s: float, output_cap_bytes: int = 65_536) -> CommandResult:
        self.at_action()
        self.runs.append((list(argv), timeout_s))
        if self.broken:
            raise self.broken
        return self.result

    def disk(self) -> tuple[int, int]:
        return 32_000_000_000, 8_000_000_000

    def sys_info(self) -> Mapping[str, Any]:
        return {"cpu": ["1"]}


class FakeController:
    """Runs, whatever happens; `broken` is what it raises when it has to do something."""

    def __init__(self) -> None:
        self.restarts: list[str] = []
        self.broken: Exception | None = None

    def restart(self, reason: str) -> None:
        self.restarts.append(reason)
        if self.broken:
            raise self.broken

    def running_since_ms(self) -> int | None:
        return 1_767_225_000_000

    def summary(self) -> Mapping[str, Any]:
        return {"controller_state": "running", "controller_version": "v1.2.0"}

    def logs(self, lines: int) -> list[str]:
        if self.broken:
            raise self.broken
        written = [f"controller line {n}" for n in range(3)]
        return written[-lines:] if lines > 0 else []


class FakeArchive:
    """Counts ten rows in every range; a `broken` one is unavailable."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.broken = False
        self.unproven = 0
        self.at_asking: Callable[[], object] = lambda: None

    def _ask(self, *what: Any) -> int:
        self.at_asking()
        self.asked.append(what)
        if self.broken:
            raise Unavailable("gateway.db: database is locked")
        return 10

    def mark_for_publishing(
        self,
        start_ms: int,
        end_ms: int,
        progress: Callable[[int], None] = lambda _: None,
        keys: Sequence[str] | None = None,
    ) -> int:
        count = self._ask("mark", start_ms, end_ms, *([] if keys is None else [keys]))
        progress(4)
        progress(count)
        return count

    def discard(self, start_ms: int, end_ms: int) -> int:
        return self._ask("discard", start_ms, end_ms)

    def kept(self, start_ms: int, end_ms: int) -> int:
        return self.unproven

    def stats(self, start_ms: int | None, end_ms: int | None) -> Mapping[str, Any]:
        self._ask("stats", start_ms, end_ms)
        return {"rows": 10, "rows_per_day": {"2026-01-01": 10}}

    def counts(self) -> Mapping[str, Any]:
        self._ask("counts")
        return {"accepted": 12, "delivered": 2, "pending": 10, "oldest_pending_ts": 1_767_225_540_000}

    def dead_letters(self, limit: int, before_id: int | None) -> Sequence[Mapping[str, Any]]:
        self._ask("letters", limit, before_id)
        return [{"id": 3, "reason": "'ts' is missing"}]

    def retry_dead_letters(self, ids: Sequence[int] | None) -> int:
        return self._ask("retry", ids)

    def drop_dead_letters(self, ids: Sequence[int] | None) -> int:
        return self._ask("drop", ids)


class FakeLog:
    def recent(self, lines: int, level: int = 10) -> list[str]:
        return (["a warning", "an error"] if level < 40 else ["an error"])[-lines:] if lines > 0 else []


@dataclass
class Rig:
    """`call` is a delivery by the server; `again` builds the next process on the same file."""

    path: Path
    run_command: str | CommandList = "on"
    disabled: frozenset[str] = frozenset()
    clock: FakeClock = field(default_factory=FakeClock)
    session: FakeSession = field(default_factory=FakeSession)
    machine: FakeMachine = field(default_factory=FakeMachine)
    controller: FakeController = field(default_factory=FakeController)
    archive: FakeArchive = field(default_factory=FakeArchive)
    inits: list[str] = field(default_factory=list)  #: one a call of `init_files`
    levels: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.database = Database(self.path)
        self.database.open(rpc_journal.SCHEMA)
        self.rpc_journal = RpcJournalTable(self.database)
        self.journal = CallJournal(self.rpc_journal, self.clock)
        self.log_level = LogLevel(self.levels.append, "INFO", self.clock)
        self.status = sources = StatusSources(
            versions={"gateway": "0.1.0"},
            started_s=self.clock.monotonic_s() - 60,
            session=self.session,
            link=LinkHistory,
            archive=self.archive,
            controller=self.controller,
            machine=self.machine,
            log=FakeLog(),
            log_level=self.log_level,
            clock=self.clock,
            delivery=lambda: {"rows_per_s": 5.0, "backlog_rows_per_s": 4.0, "server_gives_proofs": True},
            troubles=lambda: {"archive_records": "gateway.db: disk is full"},
        )
        ports = MethodPorts(
            machine=self.machine,
            controller=self.controller,
            archive=self.archive,
            init_files=lambda: self.inits.append("init"),
            log=FakeLog(),
            log_level=self.log_level,
            journal=self.journal,
            status=sources,
            run_command=self.run_command,
        )
        self.methods = methods(ports)
        self.calls = RpcDispatcher(
            methods=self.methods,
            disabled=self.disabled,
            session=self.session,
            journal=self.journal,
            clock=self.clock,
            stopping=self.stopping,
        )
        self.calls.recover()

    def take(self, request_id: int, method: str, params: Any = None) -> Any:
        """The listener's path without the queue: returns the last answer, None when there was none."""
        before = len(self.session.sent)
        request = RpcRequest(request_id, method, params)
        deadline_ms = self.calls.take(request)
        if deadline_ms is not None:
            self.calls.run(request, deadline_ms)
        return self._answer(before, request_id)

    def call(self, request_id: int, method: str, params: Any = None) -> Any:
        """The same through the queue in immediate mode."""
        before = len(self.session.sent)
        handle_rpc(request_id, method, params)
        return self._answer(before, request_id)

    def refuse(self, request_id: int, reason: str) -> Any:
        before = len(self.session.sent)
        refuse_rpc(request_id, reason)
        return self._answer(before, request_id)

    def _answer(self, before: int, request_id: int) -> Any:
        new = self.session.sent[before:]
        assert len(new) <= 1, f"{len(new)} answers to one delivery"
        assert all(topic == f"v1/devices/me/rpc/response/{request_id}" for topic, _ in new)
        return new[0][1] if new else None

    def again(self) -> "Rig":
        """The next process: same file, same outside, nothing remembered."""
        self.database.close()
        return Rig(
            self.path, self.run_command, self.disabled, self.clock, self.session, self.machine, self.controller,
            self.archive, self.inits, self.levels,
        )  # fmt: skip

    @contextmanager
    def serving(self) -> Iterator["Rig"]:
        """Tasks run inline, on these calls; an exception in a task fails the test."""
        escaped: list[object] = []

        def note(_: str, __: object, error: object = None) -> None:
            escaped.append(error)

        before = huey.immediate
        huey.immediate = True
        huey.signal("error")(note)
        try:
            with huey.serving(cast(Services, SimpleNamespace(calls=self.calls, log_level=self.log_level))):
                yield self
        finally:
            huey.disconnect_signal(note, "error")
            huey.immediate = before
            self.database.close()
        assert not escaped, escaped
