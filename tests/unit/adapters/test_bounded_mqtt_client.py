"""Packets of any announced length: a bounded part of them is in memory, and the connection goes on."""

import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from teg.adapters.bounded_mqtt_client import MAX_PACKET_BYTES, BoundedClient
from teg.adapters.mqtt_session import MqttSession, Server
from tests.support.raw_server import CONNACK_OK, RawServer, read_packet

MIB = 1 << 20
TOPIC = b"v1/devices/me/attributes"

#: A gateway's session in a process of its own, which tells how far its memory grew.
SESSION = """
import sys, threading
from teg.adapters.bounded_mqtt_client import BoundedClient
from teg.adapters.mqtt_session import MqttSession, Server

def peak_kib():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

after = threading.Event()
connected = threading.Event()
session = MqttSession(
    Server("127.0.0.1", int(sys.argv[1]), None, BoundedClient), lambda: "T1", lambda *_: after.set(), connected.set
)
session.start()
assert connected.wait(20)
before = peak_kib()
assert after.wait(60), "the small message behind the large one did not come"
print((peak_kib() - before) * 1024, flush=True)
session.stop()
"""


def packet(first: int, length: int) -> bytes:
    header = bytearray([first])
    while True:
        length, digit = length >> 7, length & 0x7F
        header.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(header)


def push(connection: socket.socket, size: int, *, qos: int = 1, first: int = 0x30) -> None:
    head = len(TOPIC).to_bytes(2, "big") + TOPIC + (b"\x12\x34" if qos else b"")
    connection.sendall(packet(first | qos << 1, len(head) + size) + head)
    piece = bytes(MIB)
    for _ in range(size // MIB):
        connection.sendall(piece)
    connection.sendall(piece[: size % MIB])


def server(then: Callable[[socket.socket], None], heard: "SimpleQueue[tuple[int, bytes]]") -> RawServer:
    def serve(connection: socket.socket) -> None:
        read_packet(connection)
        connection.sendall(CONNACK_OK)
        _, body = read_packet(connection)
        connection.sendall(bytes([0x90, 5]) + body[:2] + b"\x01\x01\x01")
        threading.Thread(target=then, args=(connection,), daemon=True).start()
        while True:
            heard.put(read_packet(connection))

    return RawServer(serve)


@pytest.mark.parametrize("size", [60 * MIB, 200 * MIB])
def test_a_huge_push_costs_little_memory_and_the_next_message_is_heard(size: int) -> None:
    heard: SimpleQueue[tuple[int, bytes]] = SimpleQueue()

    def then(connection: socket.socket) -> None:
        push(connection, size)
        push(connection, 10)

    with server(then, heard) as running:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SESSION), str(running.port)],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 * MIB
    assert heard.get(timeout=5) == (0x40, b"\x12\x34")  # acknowledged: it does not come again


@pytest.fixture
def messages() -> "SimpleQueue[tuple[str, bytes]]":
    return SimpleQueue()


@pytest.mark.parametrize(
    ("size", "qos", "first"),
    [(MAX_PACKET_BYTES, 1, 0x30), (9 * MIB, 0, 0x30), (9 * MIB, 1, 0x90), (9 * MIB, 0, 0x20), (9 * MIB, 2, 0x30)],
)
def test_what_is_too_large_is_left_out_whatever_it_is(
    messages: "SimpleQueue[tuple[str, bytes]]", size: int, qos: int, first: int, caplog: pytest.LogCaptureFixture
) -> None:
    def then(connection: socket.socket) -> None:
        push(connection, size, qos=qos, first=first)
        push(connection, 3)

    with server(then, SimpleQueue()) as running:
        session = MqttSession(
            Server("127.0.0.1", running.port, None, BoundedClient),
            lambda: "T1",
            lambda topic, payload: messages.put((topic, payload)),
            lambda: None,
        )
        session.start()
        try:
            assert messages.get(timeout=20) == (TOPIC.decode(), bytes(3))
        finally:
            session.stop()
    assert "was not taken" in caplog.text


def test_what_is_just_small_enough_arrives_whole(messages: "SimpleQueue[tuple[str, bytes]]") -> None:
    size = MAX_PACKET_BYTES - len(TOPIC) - 4
    with server(lambda connection: push(connection, size), SimpleQueue()) as running:
        session = MqttSession(
            Server("127.0.0.1", running.port, None, BoundedClient),
            lambda: "T1",
            lambda topic, payload: messages.put((topic, payload)),
            lambda: None,
        )
        session.start()
        try:
            topic, payload = messages.get(timeout=20)
        finally:
            session.stop()
    assert (topic, len(payload)) == (TOPIC.decode(), size)
