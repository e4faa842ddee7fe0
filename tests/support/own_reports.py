"""What the gateway says about itself, kept in memory."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from teg.domain.errors import NotConnected, Unavailable


class FakeSession:
    """Keeps what is delivered; `fail_after` deliveries it has no connection any more."""

    def __init__(self) -> None:
        self.connected = True
        self.sent: list[tuple[str, bytes, float]] = []
        self.fail_after: int | None = None
        self.on_deliver: Callable[[bytes], None] = lambda payload: None

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        if self.fail_after is not None and len(self.sent) >= self.fail_after:
            raise NotConnected("the connection ended")
        self.on_deliver(payload)
        self.sent.append((topic, payload, timeout_s))

    def values(self) -> dict[str, Any]:
        """What the server holds after all deliveries."""
        found: dict[str, Any] = {}
        for _, payload, _ in self.sent:
            found |= orjson.loads(payload)
        return found


class FakeOwn:
    """Keeps own records; `broken` makes the disk full."""

    def __init__(self) -> None:
        self.records: list[tuple[int, dict[str, Any]]] = []
        self.broken = False
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def store_own(self, records: Sequence[tuple[int, bytes]]) -> None:
        self.entered.set()
        assert self.go_on.wait(20)
        if self.broken:
            raise Unavailable("disk full")
        for ts_ms, text in records:
            record = orjson.loads(text)
            assert record["ts"] == ts_ms
            self.records.append((ts_ms, record["values"]))
