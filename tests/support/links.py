"""Hand-written stand-ins for the outbox and the session, for tests of publishing."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from teg.domain.errors import NotConnected, Unavailable
from teg.domain.server.wire import PROBE
from teg.domain.telemetry.ports import Delivery, Stream
from tests.support.running import wait_until


class FakeClock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self.ms = 1_767_225_600_000
        self.s = 1000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.s

    def boot_id(self) -> str:
        return "boot"

    def advance(self, seconds: float) -> None:
        self.s += seconds
        self.ms += round(seconds * 1000)


@dataclass
class FakeDisk:
    """`telemetry.retention.Disk`; plenty of room unless told otherwise."""

    size_bytes: int = 1 << 20
    free: int = 1 << 30
    held: bool = True

    def free_bytes(self) -> int:
        return self.free

    def let_go(self) -> None:
        self.free += self.size_bytes * self.held
        self.held = False

    def take(self) -> None:
        self.let_go()
        if self.free < self.size_bytes:
            raise Unavailable("the ballast: No space left on device")
        self.free -= self.size_bytes
        self.held = True


@dataclass
class ArchiveSizes:
    """`telemetry.retention.Maintenance`: only its size is there; it shrinks to what is asked, or to `least`."""

    size: int = 50 << 20
    least: int = 0
    asked: list[tuple[int, int | None]] = field(default_factory=list)
    quarantine_bounds: list[int] = field(default_factory=list)

    def shrink(self, max_bytes: int, before_ms: int | None, soft_bytes: int | None = None) -> Mapping[str, int]:
        self.asked.append((max_bytes, soft_bytes))
        self.size = min(self.size, max(self.least, min(max_bytes, soft_bytes or max_bytes)))
        return {"expired": 0, "evicted": 0}

    def prune_quarantine(self, max_bytes: int) -> int:
        self.quarantine_bounds.append(max_bytes)
        return 0

    def file_bytes(self) -> int:
        return self.size

    def checkpoint(self) -> None:
        pass


@dataclass
class FakeOutbox:
    """Rows by lane; `marked` and `aside` in the order they came."""

    rows: dict[Stream, dict[int, bytes]] = field(default_factory=lambda: {lane: {} for lane in Stream})
    marked: list[tuple[Stream, int]] = field(default_factory=list)
    aside: dict[int, str] = field(default_factory=dict)
    marks: int = 0
    reads: int = 0

    def add(self, lane: Stream, ids: Sequence[int], text: str = "") -> None:
        for row_id in ids:
            self.rows[lane][row_id] = f'{{"ts":1,"values":{{"n":{row_id}{text}}}}}'.encode()

    def pending(self, lane: Stream, after_id: int, max_rows: int, max_bytes: int) -> list[tuple[int, int, int, bytes]]:
        self.reads += 1
        found = sorted((row_id, text) for row_id, text in self.rows[lane].items() if row_id > after_id)
        taken: list[tuple[int, int, int, bytes]] = []
        for row_id, text in found[:max_rows]:
            taken.append((row_id, text.count(b'":') - 2, 0, text))
            if sum(len(row[3]) for row in taken) >= max_bytes:
                break
        return taken

    def newest(self, lane: Stream) -> int:
        return max(self.rows[lane], default=0)

    def connection_ended(self) -> int:
        return 0

    def mark_published(self, deliveries: Sequence[Delivery]) -> None:
        self.marks += 1
        for delivery in deliveries:
            for row_id in delivery.ids:
                assert self.rows[delivery.lane].pop(row_id, None) is not None, f"{row_id} was marked twice"
                self.marked.append((delivery.lane, row_id))

    def set_aside(self, lane: Stream, record_id: int, reason: str) -> None:
        del self.rows[lane][record_id]
        self.aside[record_id] = reason

    @property
    def left(self) -> int:
        return sum(map(len, self.rows.values()))


def numbers(payload: bytes) -> list[int]:
    return [element["values"]["n"] for element in orjson.loads(payload)]


class FakeLink:
    """A server that acknowledges at once, unless `takes` says that it closes the connection on a payload.

    `hold` keeps acknowledgements back until so many wait; then they come in a shuffled order.
    """

    def __init__(self, takes: Callable[[bytes], bool] = lambda _: True, hold: int = 1, seed: int = 1) -> None:
        self.connected = True
        self.epoch = 1
        self.closed_by_peer = False
        self.takes = takes
        self.hold = hold
        self.payloads: list[bytes] = []
        self.probes = 0
        self.most_waiting = 0
        self.reconnects_now = 0
        self.worked = False
        self.given_up: list[str] = []
        self._waiting: list[Callable[[bool], None]] = []
        self._random = random.Random(seed)

    @property
    def sent(self) -> list[list[int]]:
        return [numbers(payload) for payload in self.payloads]

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def newest_waiting(self) -> Callable[[bool], None]:
        """What is called for the last publish when it is acknowledged."""
        return self._waiting[-1]

    def wait_sent(self, payloads: int) -> None:
        """Wait until so many payloads were sent since the list was emptied."""
        wait_until(lambda: len(self.payloads) >= payloads, 10, f"{payloads} payloads")

    def publish(self, topic: str, payload: bytes, on_done: Callable[[bool], None]) -> None:
        if not self.connected:
            raise NotConnected("not connected")
        self.payloads.append(payload)
        self._waiting.append(on_done)
        self.most_waiting = max(self.most_waiting, len(self._waiting))
        if not self.takes(payload):
            self.lose(by_peer=True)
        elif len(self._waiting) >= self.hold:
            self.acknowledge()

    def acknowledge(self, most: int | None = None) -> None:
        self._random.shuffle(self._waiting)
        count = len(self._waiting) if most is None else most
        done, self._waiting = self._waiting[:count], self._waiting[count:]
        for on_done in done:
            on_done(True)

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        """`{}`, or one record that was acknowledged before."""
        if not self.connected:
            raise NotConnected("not connected")
        self.probes += 1
        if payload != PROBE:
            assert len(numbers(payload)) == 1
            if not self.takes(payload):
                self.lose(by_peer=True)
                raise NotConnected("closed on the control")

    def stalled_s(self) -> float:
        return float("inf")

    def works(self) -> None:
        self.worked = True

    def lose(self, by_peer: bool) -> None:
        self.connected = False
        self.closed_by_peer = by_peer
        waiting, self._waiting = self._waiting, []
        for on_done in waiting:
            on_done(False)

    def reconnect(self) -> None:
        self.connected = True
        self.epoch += 1

    def give_up(self, reason: str) -> None:
        self.given_up.append(reason)
        self.lose(by_peer=False)

    def reconnect_now(self) -> None:
        self.reconnects_now += 1

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        raise NotImplementedError

    def subscribe(self, topic_filter: str) -> None:
        raise NotImplementedError
