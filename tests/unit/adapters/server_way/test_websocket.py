"""A WebSocket as a stream of bytes: in order whatever the frames, bounded, and with refusals that say what to do."""

import select
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from teg.adapters.server_way import Way
from teg.adapters.server_way.websocket import PIECE_BYTES
from teg.domain.server.connection_faults import UpgradeRefused
from tests.support import web_socket_peer as peer
from tests.support.outside_programs import free_port, mosquitto
from tests.support.raw_server import RawServer

Serve = Callable[[socket.socket], None]


@contextmanager
def opened(serve: Serve, path: str = "/mqtt") -> Iterator[Any]:
    """The stream to a server that accepts the upgrade, then does what `serve` says, and waits for our end."""

    def all_of_it(connection: socket.socket) -> None:
        requests.put(peer.accept(connection))
        serve(connection)
        over.wait(20)

    over = threading.Event()
    with RawServer(all_of_it) as raw:
        stream = Way("127.0.0.1", raw.port, path=path).open(10)
        try:
            stream.setblocking(False)  # type: ignore[attr-defined]
            yield stream
        finally:
            stream.close()
            over.set()


requests: "SimpleQueue[dict[str, str]]" = SimpleQueue()


def read(stream: Any, count: int, at_once: int = 1 << 20) -> bytes:
    """As paho reads: when `select` or `pending` says that there is something."""
    found = b""
    while len(found) < count:
        if not stream.pending():
            assert select.select([stream], [], [], 10)[0], f"{len(found)} of {count} bytes"
        try:
            piece = stream.recv(min(at_once, count - len(found)))
        except BlockingIOError:
            continue
        assert piece, "the end"
        found += piece
    return found


def write(stream: Any, data: bytes) -> None:
    """As paho writes: the same data again until it was taken."""
    while data:
        try:
            data = data[stream.send(data) :]
        except BlockingIOError:
            select.select([], [stream], [], 10)


def test_the_request_is_that_of_mqtt() -> None:
    with opened(lambda _: None, "/api/mqtt?site=7") as stream:
        assert stream.fileno() > 0
        while (request := requests.get(timeout=5))["path"] == "/mqtt":
            pass  # another test's
    assert request["path"] == "/api/mqtt?site=7"
    assert request["sec-websocket-protocol"] == "binary, mqtt"
    assert request["host"].startswith("127.0.0.1:")


DATA = bytes(range(256)) * 1200


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, len(DATA)])
@pytest.mark.parametrize("at_once", [1, 70_000])
def test_what_comes_in_frames_of_any_size_is_read_in_order(size: int, at_once: int) -> None:
    data = DATA[:2000] if 1 in (size, at_once) else DATA

    def serve(connection: socket.socket) -> None:
        for start in range(0, len(data), size):
            connection.sendall(peer.frame(peer.BINARY, data[start : start + size]))

    with opened(serve) as stream:
        assert read(stream, len(data), at_once) == data


def test_a_message_in_several_frames_with_a_ping_in_between_is_read_and_the_ping_is_answered() -> None:
    pongs: SimpleQueue[tuple[int, bytes]] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        connection.sendall(peer.frame(peer.BINARY, b"ab", last=False) + peer.frame(peer.PING, b"there?"))
        connection.sendall(peer.frame(peer.CONTINUATION, b"", last=False) + peer.frame(peer.CONTINUATION, b"cd"))
        pongs.put(peer.read_frame(connection))

    with opened(serve) as stream:
        assert read(stream, 4) == b"abcd"
        assert pongs.get(timeout=10) == (peer.PONG, b"there?")


def test_frames_that_come_with_the_answer_to_the_upgrade_are_not_lost() -> None:
    """A quick server and a lazy kernel: both in one segment."""

    class Together:
        def __init__(self, connection: socket.socket) -> None:
            self.connection, self.kept = connection, b""

        def sendall(self, data: bytes) -> None:
            self.kept += data

        def recv(self, count: int) -> bytes:
            return self.connection.recv(count)

    def serve(connection: socket.socket) -> None:
        together = Together(connection)
        peer.accept(together)  # type: ignore[arg-type]
        connection.sendall(together.kept + peer.frame(peer.BINARY, b"at once"))
        over.wait(20)

    over = threading.Event()
    with RawServer(serve) as raw:
        stream: Any = Way("127.0.0.1", raw.port, path="/mqtt").open(10)
        assert stream.pending() == 7
        assert stream.recv(100) == b"at once"
        stream.close()
        over.set()


def test_a_frame_of_any_length_costs_no_memory() -> None:
    size = 24 << 20

    def serve(connection: socket.socket) -> None:
        connection.sendall(peer.head(peer.BINARY, 1 << 62))
        for _ in range(size >> 16):
            connection.sendall(bytes(1 << 16))

    with opened(serve) as stream:
        tracemalloc.start()
        left = size
        while left:
            left -= len(read(stream, min(left, 1 << 16)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 12 * PIECE_BYTES


def test_what_the_kernel_takes_only_in_part_arrives_whole_and_in_order() -> None:
    """The client writes far more than fits into the buffers before the server reads anything."""
    frames: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
    may_read = threading.Event()

    def serve(connection: socket.socket) -> None:
        may_read.wait(20)
        while True:
            frames.put(peer.read_frame(connection))

    packets = [bytes([number]) * 60_000 for number in range(1, 51)]
    with opened(serve) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        stuck = False
        for packet in packets:
            try:
                left = packet[stream.send(packet) :]
            except BlockingIOError:
                left, stuck = packet, True
                may_read.set()
            write(stream, left)
        assert stuck, "the buffers were never full: nothing was tested"
        arrived = b"".join(frames.get(timeout=20)[1] for _ in packets)
    assert arrived == b"".join(packets)


def test_the_servers_close_is_the_end_and_is_answered() -> None:
    answers: SimpleQueue[tuple[int, bytes]] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        connection.sendall(peer.frame(peer.BINARY, b"last") + peer.frame(peer.CLOSE, (1001).to_bytes(2, "big")))
        answers.put(peer.read_frame(connection))

    with opened(serve) as stream:
        assert read(stream, 4) == b"last"
        assert stream.pending(), "the end, too, is something to read"
        assert stream.recv(1) == b""
        assert answers.get(timeout=10)[0] == peer.CLOSE


def test_our_end_is_said() -> None:
    frames: SimpleQueue[tuple[int, bytes]] = SimpleQueue()
    with opened(lambda connection: frames.put(peer.read_frame(connection))) as stream:
        stream.close()
        assert frames.get(timeout=10) == (peer.CLOSE, (1000).to_bytes(2, "big"))


@pytest.mark.parametrize(
    "sent",
    [
        peer.frame(peer.TEXT, b"hello"),
        peer.frame(3, b"?"),
        peer.frame(peer.PING, b"x" * 126),
        b"\x82\x81abcd!",  # masked, which only clients may do
    ],
)
def test_what_is_against_the_rules_ends_the_connection(sent: bytes) -> None:
    opened_here = threading.Event()

    def serve(connection: socket.socket) -> None:
        opened_here.wait(10)
        connection.sendall(sent)

    with opened(serve) as stream:
        opened_here.set()
        assert select.select([stream], [], [], 10)[0]
        with suppress(ConnectionAbortedError):
            assert stream.recv(1) == b""
        assert stream.recv(1) == b"", "and stays ended"


def answers(text: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        peer.read_head(connection)
        connection.sendall(text)

    return serve


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "knows no /mqtt"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi!", r"does not open a WebSocket on /mqtt \(200\)"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "does not let this device open /mqtt"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", r"sends on from /mqtt \(302\)"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "cannot reach what speaks MQTT behind /mqtt"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no WebSocket answers on /mqtt"),
        (b"x" * 200_000, "no WebSocket answers on /mqtt"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            "no WebSocket answers on /mqtt",
        ),
    ],
)
def test_a_refusal_says_why_and_what_to_do(answer: bytes, words: str) -> None:
    with RawServer(answers(answer)) as raw, pytest.raises(UpgradeRefused, match=words):
        Way("127.0.0.1", raw.port, path="/mqtt").open(10)


def test_a_server_that_closes_instead_is_a_broken_connection() -> None:
    with RawServer(answers(b"")) as raw, pytest.raises(OSError, match=r"closed the connection|reset"):
        Way("127.0.0.1", raw.port, path="/mqtt").open(10)


def test_an_answer_that_trickles_in_does_not_hold_us() -> None:
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        peer.read_head(connection)
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * 1000:
            connection.sendall(bytes([byte]))
            if over.wait(0.02):
                return

    with RawServer(serve) as raw, pytest.raises(TimeoutError):
        Way("127.0.0.1", raw.port, path="/mqtt").open(0.5)
    over.set()


def test_a_real_broker_takes_mqtt_out_of_the_list(tmp_path: Path) -> None:
    plain = f"listener {free_port()} 127.0.0.1"  # with a WebSocket alone mosquitto 2.0 says that it listens nowhere
    with mosquitto(tmp_path, "protocol websockets", plain, "allow_anonymous true") as port:
        stream: Any = Way("127.0.0.1", port, path="/mqtt").open(10)
        write(stream, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x1e\x00\x00")
        assert read(stream, 4) == b"\x20\x02\x00\x00"
        stream.close()
