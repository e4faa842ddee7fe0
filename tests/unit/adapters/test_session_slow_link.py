"""Messages that are waited for, on links that carry little."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from teg.adapters.mqtt_session import MqttSession, Server
from teg.domain.errors import Unavailable
from teg.domain.server.wire import ATTRIBUTES, TELEMETRY
from teg.simulator.thingsboard.faults import when
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import wait_until
from tests.support.throttled_link import ThrottledLink

LARGE = b'{"a":"' + b"x" * 40_000 + b'"}'


@contextmanager
def connected(port: int) -> Iterator[MqttSession]:
    session = MqttSession(Server("127.0.0.1", port, None), lambda: "T1", lambda *_: None, lambda: None)
    session.start()
    try:
        wait_until(lambda: session.connected, 15, "connected")
        yield session
    finally:
        session.stop()


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        server.add_device("pi-07", token="T1")
        yield server


def test_a_large_message_on_a_slow_link_is_waited_for_while_bytes_move(server: ThingsBoard) -> None:
    """Four seconds on its way, one second of patience."""
    with ThrottledLink((server.host, server.port), 10_000) as link, connected(link.port) as session:
        session.deliver(ATTRIBUTES, LARGE, timeout_s=1.0)
    assert server.device("pi-07").client_attributes["a"] == "x" * 40_000


def test_a_link_that_carries_nothing_is_given_up(server: ThingsBoard) -> None:
    with ThrottledLink((server.host, server.port), 10_000) as link, connected(link.port) as session:
        link.hold()
        with pytest.raises(Unavailable, match="no PUBACK"):
            session.deliver(ATTRIBUTES, LARGE, timeout_s=0.5)


def test_a_lost_acknowledgement_is_not_waited_for_because_other_bytes_move(server: ThingsBoard) -> None:
    server.faults.drop_puback = when(lambda message: message.topic == ATTRIBUTES)
    with ThrottledLink((server.host, server.port), 10_000) as link, connected(link.port) as session:
        given_up = threading.Event()

        def feed() -> None:
            while not given_up.wait(0.02):
                session.publish(TELEMETRY, b'[{"ts":1,"values":{"n":1}}]', lambda _: None)

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            with pytest.raises(Unavailable, match="no PUBACK"):
                session.deliver(ATTRIBUTES, b'{"b":1}', timeout_s=1.0)
        finally:
            given_up.set()
            feeder.join()
