"""What a connection costs on the wire, and what makes it cheaper: counted bytes, the short topic."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from teg.adapters.mqtt_session import MqttSession, Server
from teg.domain.backoff import Backoff
from teg.domain.server.attributes import ServerAttributes
from teg.domain.server.reconnect import ConnectionPolicy
from teg.domain.server.wire import TELEMETRY, TELEMETRY_SHORT, encode_telemetry
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import wait_until


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as running:
        running.add_device("pi", token="T1")
        yield running


@contextmanager
def connected(server: ThingsBoard, count: Callable[[int, int], None] = lambda *_: None) -> Iterator[MqttSession]:
    session = MqttSession(
        Server(server.host, server.port, None),
        lambda: "T1",
        lambda topic, payload: None,
        lambda: None,
        ConnectionPolicy(Backoff(first_s=0.02, cap_s=0.05)),
        count_bytes=count,
    )
    session.start()
    try:
        wait_until(lambda: session.connected, 15, "connected")
        yield session
    finally:
        session.stop()


def telemetry_topics(server: ThingsBoard) -> list[str]:
    return [publish.topic for publish in server.device("pi").publishes if b"values" in publish.payload]


def test_every_byte_of_a_connection_is_counted_by_its_end(server: ThingsBoard) -> None:
    counted: list[tuple[int, int]] = []
    with connected(server, lambda sent, received: counted.append((sent, received))) as session:
        for number in range(50):
            session.deliver(TELEMETRY, encode_telemetry(1, {"x": "y" * 1000, "n": number}))
    sent, received = (sum(each) for each in zip(*counted, strict=True))
    assert 50 * 1050 < sent < 50 * 1050 + 100 * 150  # payload, topic, MQTT, and headers of two segments each
    assert 50 * 4 < received < 20_000
    assert all(each >= (0, 0) for each in counted)


def test_the_short_topic_is_used_once_the_server_has_answered_as_thingsboard_does(server: ThingsBoard) -> None:
    with connected(server) as session:
        attributes = ServerAttributes(session, session.use_short_topic)
        session.deliver(TELEMETRY, encode_telemetry(1, {"x": 1}))
        attributes.request_limits()
        session.deliver(TELEMETRY, encode_telemetry(2, {"x": 2}))
        results: list[bool] = []
        session.publish(TELEMETRY, encode_telemetry(3, {"x": 3}), results.append)
        wait_until(lambda: results, 15, "the acknowledgement")
        assert telemetry_topics(server) == [TELEMETRY, TELEMETRY_SHORT, TELEMETRY_SHORT]
        server.reset_connections()
        wait_until(lambda: session.epoch == 2 and session.connected, 15, "a new connection")
        session.deliver(TELEMETRY, encode_telemetry(4, {"x": 4}))
    assert telemetry_topics(server)[3:] == [TELEMETRY]  # the server behind the name may be another one now
    assert {ts: value for (_, ts), value in server.device("pi").telemetry().items()} == {n: n for n in range(1, 5)}


class Broker:
    """Answers the question for the limits in its own way."""

    epoch, connected = 1, True

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        return self._answer


@pytest.mark.parametrize("answer", [b"{}", b"[]", b'"x"', b'{"error":"timeout"}', b'{"method":"getSessionLimits"}'])
def test_another_answer_is_no_thingsboard(answer: bytes) -> None:
    found: list[Any] = []
    broker: Any = Broker(answer)
    ServerAttributes(broker, found.append).request_limits()
    assert found == []
