"""HTTP on a real socket: addresses that come late, clients that are slow, odd or many, and nothing on the disk."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from teg.adapters import page_listener
from teg.adapters.page_listener import BODY_BYTES, CONNECTIONS, HEADER_BYTES, PageListener, listen
from teg.domain.errors import Unavailable
from tests.support.running import own_address, wait_until

Start = Callable[..., tuple[str, int]]
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    content = environ["wsgi.input"].read() or b"hello"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))])
    return [content]


def free_port(host: str) -> int:
    with closing(listen(f"{host}:0")) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[PageListener] = []

    def begin(application: page_listener.Application = hello) -> tuple[str, int]:
        where = own_address(), free_port(own_address())
        started.append(PageListener(f"{where[0]}:{where[1]}", application))
        started[-1].start()
        wait_until(lambda: started[-1]._server, 10, "it listens")
        return where

    yield begin
    for each in started:
        each.stop()


def ask(where: tuple[str, int], request: bytes) -> bytes:
    """Everything that is said until the other side closes."""
    with closing(socket.create_connection(where, timeout=10)) as connection:
        connection.sendall(request)
        return said(connection)


def said(connection: socket.socket) -> bytes:
    found = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            found += part
    return found


def status(reply: bytes) -> int:
    return int(reply.split()[1])


def test_one_request_a_connection(start: Start) -> None:
    reply = ask(start(), GET * 3)
    assert reply.count(b"HTTP/1.1") == 1
    assert reply.endswith(b"hello")
    assert b"Server:" not in reply


def test_large_heads_and_bodies_are_refused(start: Start) -> None:
    """The answer may be lost with the connection, which is closed on what was not read."""
    served: list[bytes] = []

    def note(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        served.append(environ["wsgi.input"].read())
        return hello(environ, start_response)

    where = start(note)
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * HEADER_BYTES + b"\r\n\r\n"
    length = BODY_BYTES + 1
    declared = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
    assert ask(where, head)[9:12] in (b"", b"431")
    assert status(ask(where, declared)) == 413
    body = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"fff\r\n" + b"a" * 0xFFF + b"\r\n"
    assert ask(where, body + b"fff\r\n" + b"a" * 0xFFF + b"\r\n0\r\n\r\n")[9:12] in (b"", b"413")
    assert served == []
    assert ask(where, GET).endswith(b"hello")


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nX : y\r\n\r\n",
    ],
)
def test_after_nonsense_it_serves_on(start: Start, request_: bytes) -> None:
    where = start()
    with closing(socket.create_connection(where, timeout=10)) as odd:
        odd.sendall(request_)
        odd.shutdown(socket.SHUT_WR)
        said(odd)
    assert ask(where, GET).endswith(b"hello")


def test_who_sends_slowly_is_cut_off_and_holds_up_nobody(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_listener, "TRANSFER_S", 1.0)
    monkeypatch.setattr(page_listener, "TICK_S", 0.1)
    where = start()
    slow = [socket.create_connection(where, timeout=10) for _ in range(CONNECTIONS // 2)]
    for connection in slow:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
    assert ask(where, GET).endswith(b"hello")
    for connection in slow:
        with closing(connection):
            assert said(connection) == b""


def test_a_byte_now_and_then_does_not_keep_a_connection(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_listener, "TRANSFER_S", 0.5)
    monkeypatch.setattr(page_listener, "TICK_S", 0.1)
    with closing(socket.create_connection(start(), timeout=10)) as dripping:
        dripping.sendall(b"GET / HTTP/1.1\r\nX: ")

        def is_cut_off() -> bool:
            try:
                dripping.sendall(b"a")
                time.sleep(0.05)
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        wait_until(is_cut_off, 20, "cut off, however alive it looks")


def test_more_clients_than_it_takes_wait_for_their_turn(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_listener, "TRANSFER_S", 1.0)
    monkeypatch.setattr(page_listener, "TICK_S", 0.1)
    where = start()
    idle = [socket.create_connection(where, timeout=10) for _ in range(2 * CONNECTIONS)]
    assert ask(where, GET).endswith(b"hello")
    for connection in idle:
        connection.close()


def test_who_reads_slowly_holds_no_thread(start: Start) -> None:
    content = b"x" * 3_000_000

    def large(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return [content]

    where = start(large)
    slow = [socket.create_connection(where, timeout=10) for _ in range(3 * page_listener.THREADS)]
    for connection in slow:
        connection.sendall(GET)
    assert len(ask(where, GET)) > len(content)
    for connection in slow:
        connection.close()


def test_an_address_that_is_taken_is_waited_for_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(page_listener, "RETRY_S", 0.05)
    with closing(listen(f"{own_address()}:0")) as taken:
        taken.listen()
        host, port = taken.getsockname()
        listener = PageListener(f"{host}:{port}", hello)
        listener.start()
        wait_until(lambda: "waits for its address" in caplog.text, 10, "said")
        time.sleep(0.3)  # several more tries
    wait_until(lambda: listener._server, 10, "it listens")
    assert ask((host, port), GET).endswith(b"hello")
    listener.stop()
    assert caplog.text.count("waits for its address") == 1


@pytest.mark.parametrize("address", ["203.0.113.1:80", "no-such-host.invalid:80"])
def test_an_address_that_is_not_ours_is_unavailable(address: str) -> None:
    with pytest.raises(Unavailable):
        listen(address)


def test_localhost_is_loopback_and_ipv6_has_brackets() -> None:
    with closing(listen("localhost:0")) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
    with closing(listen("[::1]:0")) as listening:
        assert listening.family == socket.AF_INET6


def test_it_stops_while_it_is_asked_and_leaves_no_thread(start: Start) -> None:
    before = {thread.name for thread in threading.enumerate()}
    where = own_address(), free_port(own_address())
    listener = PageListener(f"{where[0]}:{where[1]}", hello)
    listener.start()
    wait_until(lambda: listener._server, 10, "it listens")
    with closing(socket.create_connection(where, timeout=10)):
        listener.stop()
    wait_until(lambda: {thread.name for thread in threading.enumerate()} <= before, 10, "its threads are gone")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, timeout=5)


def test_nothing_is_written_to_the_disk(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """waitress makes files of what is large: our bounds are below that."""

    def no_file(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a temporary file")

    monkeypatch.setattr("tempfile.TemporaryFile", no_file)
    monkeypatch.setattr("waitress.buffers.TempfileBasedBuffer.__init__", no_file)
    content = b"x" * 2_000_000

    def large(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return [content]

    body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n" + b"a" * 4000
    assert len(ask(start(large), body)) > len(content)
