"""Through an HTTP proxy: a real one, and those that refuse, lie or say nothing."""

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from teg.adapters.server_way import Way
from teg.adapters.tls import client_context
from teg.domain.server.connection_faults import ProxyFailed
from teg.settings import ProxyAddress
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.outside_programs import TinyProxy, free_port, tinyproxy
from tests.support.raw_server import RawServer
from tests.support.web_socket_peer import read_head


def echo(connection: socket.socket) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProxy]:
    with tinyproxy(tmp_path_factory.mktemp("proxy"), "teg:pa55word") as running:
        yield running


def address(proxy: TinyProxy, user: str = "teg", password: str = "pa55word") -> ProxyAddress:
    return ProxyAddress("127.0.0.1", proxy.port, user, password)


def test_a_real_proxy_carries_bytes_both_ways(proxy: TinyProxy) -> None:
    with RawServer(echo) as raw:
        stream = Way("127.0.0.1", raw.port, proxy=address(proxy)).open(10)
        stream.send(b"\x10\x00through")
        stream.settimeout(10)
        assert stream.recv(100) == b"\x10\x00through"
        stream.close()
        assert f"127.0.0.1:{raw.port}" in proxy.connects()


@pytest.mark.parametrize(
    ("user", "password", "words"),
    [
        ("", "", r"wants a user and a password \(407\): TB_PROXY=http://user:password@host:port"),
        ("teg", "wrong-s3cret", r"does not take this user and password \(40[17]\)"),
    ],
)
def test_a_real_proxy_that_wants_a_login_is_said_without_the_password(
    proxy: TinyProxy, user: str, password: str, words: str
) -> None:
    with pytest.raises(ProxyFailed, match=words) as raised:
        Way("127.0.0.1", 8883, proxy=address(proxy, user, password)).open(10)
    assert "s3cret" not in str(raised.value)


def test_a_real_proxy_that_allows_only_443(tmp_path: Path) -> None:
    with (
        tinyproxy(tmp_path, ports=(443,)) as strict,
        pytest.raises(
            ProxyFailed, match=r"does not allow a connection to 127\.0\.0\.1:8883 \(403\): have it allowed .*443"
        ),
    ):
        Way("127.0.0.1", 8883, proxy=ProxyAddress("127.0.0.1", strict.port)).open(10)


def test_a_server_that_a_real_proxy_cannot_reach(proxy: TinyProxy) -> None:
    with pytest.raises(ProxyFailed, match=r"cannot reach 127\.0\.0\.1:\d+ \(50\d\): check TB_HOST and TB_PORT"):
        Way("127.0.0.1", free_port(), proxy=address(proxy)).open(10)


def test_no_proxy_there() -> None:
    port = free_port()
    with pytest.raises(ProxyFailed, match=rf"the proxy 127\.0\.0\.1:{port} cannot be reached \(Connection refused\)"):
        Way("127.0.0.1", 8883, proxy=ProxyAddress("127.0.0.1", port)).open(10)


def test_what_is_asked_of_it_and_the_name_is_left_to_it() -> None:
    heads: SimpleQueue[str] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        heads.put(read_head(connection).decode())
        connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
        echo(connection)

    with RawServer(serve) as raw:
        named = ProxyAddress("127.0.0.1", raw.port, "üser", "pa:ss")
        Way("things.invalid", 8883, proxy=named).open(10).close()
        Way("2001:db8::7", 443, proxy=ProxyAddress("127.0.0.1", raw.port)).open(10).close()
    first, second = heads.get(timeout=5), heads.get(timeout=5)
    assert first.startswith("CONNECT things.invalid:8883 HTTP/1.1\r\n")
    basic = base64.b64encode("üser:pa:ss".encode()).decode()
    assert f"proxy-authorization: basic {basic}".lower() in first.lower()
    assert second.startswith("CONNECT [2001:db8::7]:443 HTTP/1.1\r\n")
    assert "authorization" not in second.lower()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n", "by negotiate, ntlm"),
        (b"HTTP/1.1 418 Teapot\r\n\r\n", "with 418"),
        (b"HTTP/1.1 405 Method Not Allowed\r\n\r\n", "does not allow a connection"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>a portal</html>", "is no HTTP proxy"),
        (b"220 mail.example.org ESMTP\r\n\r\n", "is no HTTP proxy"),
        (b"\x05\xff" * 100_000, "is no HTTP proxy"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, "is no HTTP proxy"),
    ],
)
def test_other_answers(answer: bytes, words: str) -> None:
    def serve(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(answer)
        over.wait(10)

    over = threading.Event()
    with RawServer(serve) as raw:
        with pytest.raises(ProxyFailed, match=words):
            Way("127.0.0.1", 8883, proxy=ProxyAddress("127.0.0.1", raw.port)).open(10)
        over.set()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 Connection estab"])
def test_a_proxy_that_closes_in_between(said: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(said)

    with RawServer(serve) as raw, pytest.raises((OSError, ProxyFailed)):
        Way("127.0.0.1", 8883, proxy=ProxyAddress("127.0.0.1", raw.port)).open(10)


def test_a_proxy_that_says_nothing_holds_us_no_longer_than_told() -> None:
    over = threading.Event()

    def silent(_: socket.socket) -> None:
        over.wait(20)

    with RawServer(silent) as raw:
        with pytest.raises(TimeoutError):
            Way("127.0.0.1", 8883, proxy=ProxyAddress("127.0.0.1", raw.port)).open(0.3)
        over.set()


def test_the_servers_certificate_is_checked_behind_the_proxy(proxy: TinyProxy, tmp_path: Path) -> None:
    """Its name is the server's, not the proxy's; the proxy sees nothing but encrypted bytes."""
    good = ServerTls.create(tmp_path / "good", ["localhost"])
    with ThingsBoard(tls=good) as server:
        context = client_context(good.ca_file)
        Way("localhost", server.port, context, proxy=address(proxy)).open(10).close()
        with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
            Way("127.0.0.1", server.port, context, proxy=address(proxy)).open(10)
