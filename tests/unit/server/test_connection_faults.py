"""What OpenSSL says is said in words that name the setting; real handshakes: a new OpenSSL's words are noticed."""

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from teg.adapters.tls import client_context
from teg.domain.server.connection_faults import explained


@contextmanager
def listening(context: ssl.SSLContext | None) -> Iterator[int]:
    """Accepts one connection: with TLS, or answering a handshake with plain bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                if context is None:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                else:
                    context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(10)


def handshake(port: int, ca_cert: Path | None, name: str = "localhost") -> str:
    with socket.create_connection(("127.0.0.1", port)) as raw, pytest.raises((ssl.SSLError, OSError)) as raised:
        client_context(ca_cert).wrap_socket(raw, server_hostname=name)
    return explained(str(raised.value))


def server_context(
    authority: trustme.CA, name: str = "localhost", start_days: int = -1, end_days: int = 1
) -> ssl.SSLContext:
    now = datetime.datetime.now(datetime.UTC)
    days = [now + datetime.timedelta(days=number) for number in (start_days, end_days)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_before=days[0], not_after=days[1]).configure_cert(context)
    return context


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_cert(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


def test_an_unknown_authority(authority: trustme.CA) -> None:
    with listening(server_context(authority)) as port:
        assert "THINGSBOARD_CA_CERT" in handshake(port, None)


def test_another_authority(authority: trustme.CA, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with listening(server_context(authority)) as port:
        assert "THINGSBOARD_CA_CERT" in handshake(port, tmp_path / "other.pem")


def test_another_name(authority: trustme.CA, ca_cert: Path) -> None:
    with listening(server_context(authority, "things.example.org")) as port:
        assert "TB_HOST" in handshake(port, ca_cert)


def test_an_expired_certificate(authority: trustme.CA, ca_cert: Path) -> None:
    with listening(server_context(authority, start_days=-9, end_days=-2)) as port:
        assert "certificate has expired" in handshake(port, ca_cert)


def test_a_certificate_of_the_future_means_a_wrong_clock(authority: trustme.CA, ca_cert: Path) -> None:
    with listening(server_context(authority, start_days=2, end_days=9)) as port:
        assert "clock is behind" in handshake(port, ca_cert)


def test_a_plain_port(ca_cert: Path) -> None:
    with listening(None) as port:
        assert "TB_TLS=off" in handshake(port, ca_cert)


def test_what_is_not_known_is_passed_on() -> None:
    assert explained("[Errno 111] Connection refused") == "[Errno 111] Connection refused"
