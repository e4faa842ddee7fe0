"""What the gateway says about itself, kept in memory."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from teg.domain.errors import NotConnected, Unavailable
from tests.support.acknowledgements import Acknowledgements


class FakeSession(Acknowledgements):
    """Keeps what is delivered; `fail_after` deliveries it has no connection any more."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, bytes, float]] = []
        self.fail_after: int | None = None
        self.on_deliver: Callable[[bytes], None] = lambda payload: None

    def publish(self, topic: str, payload: bytes, on_done: Callable[[bool], None]) -> None:
        self.deliver(topic, payload)
        self.settle(on_done)

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        if not self.connected or (self.fail_after is not None and len(self.sent) >= self.fail_after):
            raise NotConnected("the connection ended")
        self.on_deliver(payload)
        self.sent.append((topic, payload, timeout_s))

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        raise AssertionError("reports never ask")

    def subscribe(self, topic_filter: str) -> None:
        raise AssertionError("reports never subscribe")

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


class FakeAttributes:
    """`telemetry.reporting.PendingAttributes` in memory; contents by key: value, number of the change, told."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[bytes, int, bool]] = {}

    def set(self, values: dict[str, bytes]) -> None:
        for key, value in values.items():
            self.rows[key] = (value, self.rows.get(key, (b"", 0, False))[1] + 1, False)

    def pending(self) -> list[tuple[str, bytes, int]]:
        return [(key, value, change) for key, (value, change, told) in sorted(self.rows.items()) if not told]

    def told(self) -> list[tuple[str, bytes]]:
        return [(key, value) for key, (value, _, told) in sorted(self.rows.items()) if told]

    def tell_again(self, keys: Sequence[str] | None = None) -> None:
        for key in self.rows.keys() & (self.rows.keys() if keys is None else set(keys)):
            self.rows[key] = (*self.rows[key][:2], False)

    def mark(self, sent: list[tuple[str, int]]) -> None:
        for key, change in sent:
            if key in self.rows and self.rows[key][1] == change:
                self.rows[key] = (*self.rows[key][:2], True)
