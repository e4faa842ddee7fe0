"""The promise of `ports.Session`, kept over a real connection and by what publishing and calls are tested with."""

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from teg.adapters.mqtt_session import MqttSession, Server
from teg.domain.backoff import Backoff
from teg.domain.errors import NotConnected, Unavailable
from teg.domain.ports import Session
from teg.domain.server.reconnect import ConnectionPolicy
from teg.domain.server.wire import PROBE, TELEMETRY
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support import own_reports, rpc
from tests.support.links import FakeLink
from tests.support.running import wait_until


class Harness(Protocol):
    """A session that is connected at first, and the hand on its link."""

    session: Session
    payload: bytes

    def hold(self) -> None:
        """The server takes what comes and acknowledges nothing from now on."""

    def lose(self) -> None:
        """The connection ends, and there is none until `reconnect`."""

    def reconnect(self) -> None: ...


class OverMqtt:
    payload = PROBE

    def __init__(self, server: ThingsBoard) -> None:
        self._server = server
        server.add_device("pi", token="T1")
        self.real = MqttSession(
            Server(server.host, server.port, None),
            lambda: "T1",
            lambda topic, payload: None,
            lambda: None,
            ConnectionPolicy(Backoff(first_s=0.02, cap_s=0.05)),
            30,
        )
        self.session: Session = self.real
        self.real.start()
        wait_until(lambda: self.session.connected, 15, "connected")

    def hold(self) -> None:
        self._server.faults.puback_delay_s = 300

    def lose(self) -> None:
        self._server.stop_listening()
        self._server.reset_connections()
        wait_until(lambda: not self.session.connected, 15, "the end of the connection")

    def reconnect(self) -> None:
        self._server.faults.clear()
        self._server.start_listening()
        wait_until(lambda: self.session.connected, 15, "connected again")


class InPublishing:
    payload = PROBE

    def __init__(self) -> None:
        self._fake = FakeLink()
        self.session: Session = self._fake

    def hold(self) -> None:
        self._fake.hold = 1_000_000

    def lose(self) -> None:
        self._fake.lose(by_peer=True)

    def reconnect(self) -> None:
        self._fake.hold = 1
        self._fake.reconnect()


class InMemory:
    """`payload` is what the tests of these sessions send."""

    def __init__(self, fake: rpc.FakeSession | own_reports.FakeSession, payload: bytes) -> None:
        self.payload = payload
        self._fake = fake
        self.session: Session = fake

    def hold(self) -> None:
        self._fake.hold = True

    def lose(self) -> None:
        self._fake.lose()

    def reconnect(self) -> None:
        self._fake.reconnect()


FAKES: dict[str, Callable[[], Harness]] = {
    "publishing": InPublishing,
    "calls": lambda: InMemory(rpc.FakeSession(), b'{"message":"OK"}'),
    "reports": lambda: InMemory(own_reports.FakeSession(), PROBE),
}


@pytest.fixture(params=["mqtt", *FAKES])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    if request.param in FAKES:
        yield FAKES[request.param]()
        return
    with ThingsBoard() as server:
        made = OverMqtt(server)
        yield made
        made.real.stop()


class Outcomes:
    """What `on_done` was called with."""

    def __init__(self) -> None:
        self.all: list[bool] = []
        self._lock = threading.Lock()

    def __call__(self, done: bool) -> None:
        with self._lock:
            self.all.append(done)

    def wait(self, count: int) -> list[bool]:
        wait_until(lambda: len(self.all) >= count, 15, f"{count} outcomes")
        return self.all


def test_an_acknowledged_publish_is_told_once(harness: Harness) -> None:
    outcomes = Outcomes()
    for _ in range(3):
        harness.session.publish(TELEMETRY, harness.payload, outcomes)
    assert outcomes.wait(3) == [True] * 3
    harness.session.deliver(TELEMETRY, harness.payload)
    harness.lose()
    assert outcomes.all == [True] * 3


def test_what_was_on_its_way_when_the_connection_ended_is_told_once_as_not_done(harness: Harness) -> None:
    outcomes = Outcomes()
    harness.hold()
    for _ in range(3):
        harness.session.publish(TELEMETRY, harness.payload, outcomes)
    assert outcomes.all == []
    harness.lose()
    assert outcomes.wait(3) == [False] * 3
    harness.reconnect()
    harness.session.publish(TELEMETRY, harness.payload, Outcomes())
    assert outcomes.all == [False] * 3


def test_without_a_connection_nothing_is_sent_and_nothing_told(harness: Harness) -> None:
    outcomes = Outcomes()
    harness.lose()
    assert not harness.session.connected
    with pytest.raises(NotConnected):
        harness.session.publish(TELEMETRY, harness.payload, outcomes)
    with pytest.raises(Unavailable):
        harness.session.deliver(TELEMETRY, harness.payload, timeout_s=1)
    harness.reconnect()
    harness.session.deliver(TELEMETRY, harness.payload)
    assert outcomes.all == []


def test_two_connections_have_two_epochs(harness: Harness) -> None:
    first = harness.session.epoch
    assert harness.session.connected and first >= 1
    harness.lose()
    harness.reconnect()
    assert harness.session.connected and harness.session.epoch > first
