"""Immediate mode with recording fakes, for the tests of `tasks/`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.huey_app import GatewayHuey
from tasks.queue import huey
from tasks.services import Services
from teg.domain.concurrency import WorkSignal


class Recording:
    """Notes every call as "name.method"; `fail["name.method"] = error` makes one raise."""

    def __init__(self, name: str, calls: list[str], fail: dict[str, Exception], **attributes: Any) -> None:
        self._name, self._calls, self._fail = name, calls, fail
        self.signal = WorkSignal()
        self.connected = True
        for key, value in attributes.items():
            setattr(self, key, value)

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any) -> None:
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
        for name in Services.__dataclass_fields__:
            if name != "stopping":
                setattr(self, name, Recording(name, self.done, self.fail))
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
