"""A session through a WebSocket: what holds over TCP holds there: bounds, pings, slow links, the end."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest

from teg.adapters.bounded_mqtt_client import MAX_PACKET_BYTES, client_through
from teg.adapters.mqtt_session import MqttSession, Server
from teg.adapters.server_way import Way
from teg.domain.backoff import Backoff
from teg.domain.server.reconnect import ConnectionPolicy
from teg.domain.server.wire import TELEMETRY
from tests.support import web_socket_peer as peer
from tests.support.outside_programs import free_port, mosquitto
from tests.support.raw_server import RawServer
from tests.support.running import wait_until
from tests.support.throttled_link import ThrottledLink

CONNACK = peer.frame(peer.BINARY, b"\x20\x02\x00\x00")


@contextmanager
def session(
    port: int, told: "SimpleQueue[tuple[str, bytes]] | None" = None, keepalive_s: int = 30
) -> Iterator[MqttSession]:
    heard: SimpleQueue[tuple[str, bytes]] = told or SimpleQueue()
    way = Way("127.0.0.1", port, path="/mqtt")
    made = MqttSession(
        Server("127.0.0.1", port, None, client_through(way.open)),
        lambda: "T1",
        lambda topic, payload: heard.put((topic, payload)),
        lambda: None,
        ConnectionPolicy(Backoff(first_s=0.05, cap_s=0.1)),
        keepalive_s,
        subscriptions=(),
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()


def publish(topic: bytes, size: int, filler: bytes = b"x") -> bytes:
    """QoS 0, with its length in MQTT's own way."""
    body = len(topic).to_bytes(2, "big") + topic + filler * (size - len(topic) - 2)
    length, left = b"", len(body)
    while left or not length:
        length += bytes([(left & 0x7F) | (0x80 if left > 0x7F else 0)])
        left >>= 7
    return b"\x30" + length + body


def test_a_packet_that_is_too_large_is_read_past_and_the_connection_stays(caplog: pytest.LogCaptureFixture) -> None:
    told: SimpleQueue[tuple[str, bytes]] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        peer.accept(connection)
        peer.read_frame(connection)
        connection.sendall(CONNACK + peer.frame(peer.BINARY, publish(b"large", MAX_PACKET_BYTES + 1)))
        connection.sendall(peer.frame(peer.BINARY, publish(b"small", 20)))
        while True:
            peer.read_frame(connection)

    with RawServer(serve) as raw, session(raw.port, told) as made:
        assert told.get(timeout=20) == ("small", b"x" * 13)
        assert (made.connected, raw.connections) == (True, 1)
    assert "was not taken: nothing larger than 8 MiB is" in caplog.text


def test_silence_is_noticed() -> None:
    """A half-open connection: the ping goes out, and nothing comes back."""
    opcodes: SimpleQueue[bytes] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        peer.accept(connection)
        peer.read_frame(connection)
        connection.sendall(CONNACK)
        while True:
            opcodes.put(peer.read_frame(connection)[1])

    with RawServer(serve) as raw, session(raw.port, keepalive_s=1):
        assert opcodes.get(timeout=20) == b"\xc0\x00", "PINGREQ"
        wait_until(lambda: raw.connections >= 2, 20, "given up, and made anew")


def test_our_stop_is_said_in_both_languages() -> None:
    frames: SimpleQueue[tuple[int, bytes]] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        peer.accept(connection)
        peer.read_frame(connection)
        connection.sendall(CONNACK)
        while True:
            frames.put(peer.read_frame(connection))

    with RawServer(serve) as raw:
        with session(raw.port) as made:
            wait_until(lambda: made.connected, 15, "connected")
        assert frames.get(timeout=10) == (peer.BINARY, b"\xe0\x00"), "MQTT's DISCONNECT"
        assert frames.get(timeout=10)[0] == peer.CLOSE


def test_a_slow_link_is_seen_to_move(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To a real broker: the message takes longer than its acknowledgement may, and bytes move all the time."""
    caplog.set_level(logging.INFO)
    lines = ("protocol websockets", f"listener {free_port()} 127.0.0.1", "allow_anonymous true")
    with (
        mosquitto(tmp_path, *lines) as port,
        ThrottledLink(("127.0.0.1", port), 60_000) as link,
        session(link.port) as made,
    ):
        wait_until(lambda: made.connected, 20, "connected")
        made.deliver(TELEMETRY, b'{"x":"%s"}' % (b"x" * 200_000), timeout_s=1.5)
        assert made.epoch == 1
