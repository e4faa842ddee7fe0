"""A publisher over an outbox and a link that tests can break."""

import threading
from collections.abc import Callable

from teg.domain.errors import NotConnected, Unavailable
from teg.domain.ports import Clock
from teg.domain.telemetry.in_flight import MOST_BYTES
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.publisher import Publisher
from tests.support.links import FakeClock, FakeLink, FakeOutbox

#: Id of a log line of the gateway's own.
OWN_LINE = 99_999


FILLER = ',"x":"' + "x" * 1000 + '"'


def never() -> bool:
    return False


class Running:
    """A publisher on a thread of its own, and how it ended."""

    def __init__(self, mine: Publisher, stopping: Callable[[], bool] = never) -> None:
        self.error: type[Exception] | None = None
        self._mine, self._stopping = mine, stopping
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._mine.run(self._stopping)
        except Unavailable as error:
            self.error = type(error)

    def ends_with(self, error: type[Exception] | None) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()
        assert self.error is error


def publisher(outbox: FakeOutbox, link: FakeLink, clock: Clock | None = None, idle_timeout_s: float = 0.0) -> Publisher:
    """On a link that has shown how much it carries (what it does before: test_in_flight.py)."""
    mine = Publisher(outbox, link, clock or FakeClock(), idle_timeout_s=idle_timeout_s)
    mine._flight.capacity.window_bytes = MOST_BYTES
    return mine


def drain(outbox: FakeOutbox, link: FakeLink, connections: int = 100) -> Publisher:
    """Publish with as many new connections as it takes."""
    mine = publisher(outbox, link)
    for _ in range(connections):
        try:
            mine.run(never)
        except NotConnected:
            link.reconnect()
        else:
            if not outbox.left:
                return mine
            outbox.add(Stream.OWN, [OWN_LINE])  # the gateway says what it suspects, and that line is sent, too
    raise AssertionError(f"{outbox.left} rows are left after {connections} connections")
