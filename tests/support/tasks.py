"""Immediate mode with recording fakes, for the tests of `tasks/`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, get_args, get_type_hints

from tasks.huey_app import GatewayHuey
from tasks.queue import huey
from tasks.services import Services
from teg.domain import flash_budget, ports
from teg.domain.concurrency import WorkSignal
from teg.domain.files import reconciler as files_reconciler
from teg.domain.ota import updater
from teg.domain.rpc import dispatcher, log_level
from teg.domain.server import attributes, link_budget
from teg.domain.supervision import supervisor
from teg.domain.telemetry import ingest, legacy_import, publisher, reporting, retention, storage_proof
from teg.domain.telemetry import ports as telemetry_ports


def service_types() -> dict[str, tuple[type, ...]]:
    """Service → the classes that it may be an instance of."""
    names = {
        name: found
        for module in (files_reconciler, ports, updater, dispatcher, log_level, attributes, supervisor, ingest)
        for name, found in vars(module).items()
    }
    for module in (
        legacy_import,
        telemetry_ports,
        publisher,
        reporting,
        retention,
        storage_proof,
        flash_budget,
        link_budget,
    ):
        names |= vars(module)
    hints = get_type_hints(Services, localns=names)
    return {name: get_args(hint) or (hint,) for name, hint in hints.items()}


class Recording:
    """Notes every call as "name.method"; `fail["name.method"] = error` makes one raise.

    It has the methods of the real service and no others, and they take what the real ones take.
    """

    def __init__(self, name: str, types: tuple[type, ...], calls: list[str], fail: dict[str, Exception]) -> None:
        self._name, self._types, self._calls, self._fail = name, types, calls, fail
        self.signal = WorkSignal()
        self.connected = True
        self.postponed = False

    def __getattr__(self, method: str) -> Any:
        real = [found for kind in self._types if (found := getattr(kind, method, None)) is not None]
        if method.startswith("_") or not real:
            raise AttributeError(f"no service '{self._name}' has '{method}'")

        def call(*arguments: Any) -> None:
            for function in real:
                signature(function).bind(None, *arguments)
            full = f"{self._name}.{method}"
            self._calls.append(full)
            self.__dict__.setdefault("arguments", {})[full] = arguments
            if full in self._fail:
                raise self._fail[full]

        return call


class FakeServices:
    """Every service records; `done` holds what the tasks did, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fail: dict[str, Exception] = {}
        self.stopping = threading.Event()
        for name, types in service_types().items():
            if name != "stopping":
                setattr(self, name, Recording(name, types, self.done, self.fail))
        self.files.restart_due = False
        self.files.stale = False

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@contextmanager
def serving(services: Any) -> Iterator[GatewayHuey]:
    """Tasks run where they are enqueued; retries wait in `huey.scheduled()`."""
    huey.immediate = True
    try:
        with huey.serving(services):
            yield huey
    finally:
        huey.immediate = False
