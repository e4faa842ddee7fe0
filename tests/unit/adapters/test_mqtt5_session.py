"""MQTT 5 where the server speaks it: reasons instead of guesses; 3.1.1 where it does not."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest
from paho.mqtt.client import MQTTv5, MQTTv311

from teg.adapters.bounded_mqtt_client import BoundedClient
from teg.adapters.mqtt_session import MqttSession, Server
from teg.adapters.mqtt_session.version import MISSES_LATER, ProtocolVersion, VersionMemory
from teg.domain.backoff import Backoff
from teg.domain.errors import NotConnected
from teg.domain.server.reconnect import ConnectionPolicy
from teg.domain.server.second_user import Suspicion
from teg.domain.server.wire import ATTRIBUTES, SUBSCRIPTIONS, TELEMETRY
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.raw_server import CONNACK_OK, RawServer, read_packet
from tests.support.running import wait_until

BOTH = (MQTTv5, MQTTv311)


class Memory:
    """`VersionMemory` that counts what is written."""

    def __init__(self, version: int | None = None) -> None:
        self.version, self.written = version, 0

    def read(self, newest: int) -> int | None:
        return self.version

    def keep(self, version: int) -> None:
        self.version, self.written = version, self.written + 1

    def forget(self) -> None:
        self.version, self.written = None, self.written + 1


@contextmanager
def session(
    port: int, token: str = "T1", versions: tuple[int, ...] = BOTH, memory: VersionMemory | None = None
) -> Iterator[MqttSession]:
    made = MqttSession(
        Server("127.0.0.1", port, None, BoundedClient, versions),
        lambda: token,
        lambda *_: None,
        lambda: None,
        ConnectionPolicy(Backoff(first_s=0.05, cap_s=0.1)),
        version_memory=memory,
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        yield server


@pytest.fixture
def device(server: ThingsBoard) -> Device:
    return server.add_device("pi-07", token="T1")


def connected(made: MqttSession, times: int = 1) -> None:
    wait_until(lambda: made.connected and made.epoch >= times, 15, f"connected {times} times")


def test_mqtt_5_is_spoken_with_a_server_that_does(server: ThingsBoard, device: Device) -> None:
    with session(server.port) as made:
        connected(made)
        made.deliver(TELEMETRY, b'[{"ts":1767225600123,"values":{"n":1}}]')
        assert device.subscriptions == dict.fromkeys(SUBSCRIPTIONS, 1)
        assert device.sessions[0].version == 5
    assert device.telemetry() == {("n", 1_767_225_600_123): 1}


def test_without_the_setting_it_is_not(server: ThingsBoard, device: Device) -> None:
    with session(server.port, versions=(MQTTv311,)) as made:
        connected(made)
        assert device.sessions[0].version == 4


def test_a_second_user_is_certain_at_once_and_named(
    server: ThingsBoard, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    with session(server.port) as made:
        connected(made)
        assert made.second_user is None
        with session(server.port) as other:
            connected(other)
            wait_until(lambda: made.second_user is Suspicion.CERTAIN, 15, "it is known")
    assert "another session took its place" in caplog.text


def test_a_refused_message_is_not_taken_for_acknowledged(
    server: ThingsBoard, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the server closes: the publisher looks for the culprit then."""
    with session(server.port) as made:
        connected(made)
        with pytest.raises(NotConnected, match="ended before"):
            made.deliver(ATTRIBUTES, b"[]")
        wait_until(lambda: made.closed_by_peer, 5, "the server's doing")
        connected(made, 2)
    assert "the server refused a message: Payload format invalid (0x99)" in caplog.text


def test_an_unknown_token_is_said_in_the_same_words(server: ThingsBoard, caplog: pytest.LogCaptureFixture) -> None:
    with session(server.port, token="unknown"):
        wait_until(lambda: "does not know this access token" in caplog.text, 15, "it is said")


def closes_at_5(answer: bytes) -> Callable[[socket.socket], None]:
    """An old server: byte 8 of CONNECT's body is the version."""

    def serve(connection: socket.socket) -> None:
        _, body = read_packet(connection)
        if body[6] == 5:
            connection.sendall(answer)
            return
        connection.sendall(CONNACK_OK)
        versions.put(body[6])
        while True:
            first, body = read_packet(connection)
            if first >> 4 == 8:
                connection.sendall(bytes([0x90, 5, *body[:2], 1, 1, 1]))

    return serve


versions: "SimpleQueue[int]" = SimpleQueue()


@pytest.mark.parametrize("answer", [b"", bytes([0x20, 2, 0, 1]), bytes([0x20, 3, 0, 0x84, 0])])
def test_a_server_that_does_not_know_it_gets_3_1_1(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with RawServer(closes_at_5(answer)) as raw, session(raw.port) as made:
        connected(made)
        assert versions.get(timeout=5) == 4
        assert raw.connections == 2
    assert "does not answer MQTT 5: MQTT 3.1.1 is tried next" in caplog.text


def test_a_server_that_answered_once_is_not_given_up_for_a_restart() -> None:
    version = ProtocolVersion(BOTH)
    version.ended(answered=True, closed_unanswered=False)
    for _ in range(MISSES_LATER - 1):
        version.ended(answered=False, closed_unanswered=True)
        assert version.number == MQTTv5
    version.ended(answered=False, closed_unanswered=True)
    assert version.number == MQTTv311


def test_no_network_says_nothing_of_the_version() -> None:
    version = ProtocolVersion(BOTH)
    for _ in range(10):
        version.ended(answered=False, closed_unanswered=False)
    assert version.number == MQTTv5


def test_after_a_restart_the_version_that_answered_is_the_first_try() -> None:
    """And it is written once, not at every connection."""
    memory = Memory()
    with RawServer(closes_at_5(b"")) as raw:
        with session(raw.port, memory=memory) as made:
            connected(made)
            made.give_up("the test wants another connection")
            connected(made, 2)
        before = raw.connections
        with session(raw.port, memory=memory) as made:
            connected(made)
        assert raw.connections == before + 1, "no try with MQTT 5"
    assert (memory.version, memory.written) == (MQTTv311, 1)


def test_a_remembered_version_that_fails_is_forgotten_and_the_other_one_remembered() -> None:
    memory = Memory(MQTTv5)
    with RawServer(closes_at_5(b"")) as raw, session(raw.port, memory=memory) as made:
        connected(made)
        assert raw.connections == MISSES_LATER + 1
    assert (memory.version, memory.written) == (MQTTv311, 2), "forgotten, then kept"


def test_a_remembered_version_that_is_refused_is_forgotten_at_once() -> None:
    memory = Memory(MQTTv5)
    with RawServer(closes_at_5(bytes([0x20, 3, 0, 0x84, 0]))) as raw, session(raw.port, memory=memory) as made:
        connected(made)
        assert raw.connections == 2
    assert memory.version == MQTTv311


def test_where_one_version_is_set_nothing_is_remembered_or_recalled() -> None:
    memory = Memory(MQTTv5)
    version = ProtocolVersion((MQTTv311,), memory)
    assert version.number == MQTTv311
    version.ended(answered=True, closed_unanswered=False)
    assert (memory.version, memory.written) == (MQTTv5, 0)
