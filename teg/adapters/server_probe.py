"""Looks at the server as a stranger: name, port, certificate, and what it answers to a CONNECT.

One question a call, no session kept. A token is only sent where the caller says so: a second session with the token of
a running gateway would end that one's.
"""

import functools
import socket
import ssl
import time
from dataclasses import dataclass

from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from teg.domain.errors import Refused, Unavailable
from teg.domain.server.reconnect import CONNACK_NUMBERS

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """`days_left` until it expires; `protocol` is the TLS version that was agreed on."""

    days_left: float
    protocol: str


def addresses(host: str) -> list[str]:
    """Raises Unavailable: the name is not known, or no name server answers."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(str(error)) from error
    return sorted({str(address[0]) for *_, address in found})


def connect_ms(host: str, port: int) -> float:
    """How long a TCP connection takes; raises Unavailable."""
    started_s = time.monotonic()
    try:
        with socket.create_connection((host, port), TIMEOUT_S):
            return (time.monotonic() - started_s) * 1000
    except OSError as error:
        raise Unavailable(error.strerror or str(error)) from error


def certificate(host: str, port: int, context: ssl.SSLContext) -> Certificate:
    """A handshake that verifies.

    Raises:
        Refused: the handshake failed; the message is OpenSSL's.
        Unavailable: no connection.
    """
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as raw:
            return _handshake(raw, host, context)
    except OSError as error:
        raise Unavailable(str(error)) from error


def _handshake(raw: socket.socket, host: str, context: ssl.SSLContext) -> Certificate:
    try:
        with context.wrap_socket(raw, server_hostname=host) as connection:
            found = connection.getpeercert() or {}
            expires_s = ssl.cert_time_to_seconds(str(found["notAfter"]))
            return Certificate((expires_s - time.time()) / 86_400, connection.version() or "")
    except OSError as error:  # also a reset: what a port does that speaks something else
        raise Refused(str(error)) from error


def speaks_tls(host: str, port: int) -> bool:
    """Whether there is TLS at all, whatever its certificate; nothing is sent through it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as raw, context.wrap_socket(raw, server_hostname=host):
            return True
    except OSError:
        return False


#: MQTT 3.1.1, clean session, no user, an empty client id: whoever speaks MQTT answers with a CONNACK.
_STRANGERS_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x1e\x00\x00"
_CONNACK = 0x20


@functools.lru_cache(maxsize=1)
def who_answers(host: str, port: int, context: ssl.SSLContext | None = None) -> str:
    """What speaks on this port, through TLS if there is a context: "MQTT", "HTTP", the beginning of what else it says;
    empty when it says nothing or closes."""
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as raw:
            if context is None:
                return _named(_greeting(raw))
            with context.wrap_socket(raw, server_hostname=host) as connection:
                return _named(_greeting(connection))
    except OSError:
        return ""


def _greeting(connection: socket.socket) -> bytes:
    connection.sendall(_STRANGERS_CONNECT)
    return connection.recv(200)


def _named(greeting: bytes) -> str:
    if greeting[:1] == bytes([_CONNACK]):
        return "MQTT"
    return "HTTP" if greeting.startswith(b"HTTP/") else greeting.decode("latin-1").strip()


def connack(host: str, port: int, context: ssl.SSLContext | None, user: str | None) -> int | None:
    """The number the server answers to a CONNECT, 0 = welcome; None when it closes or is silent instead."""
    codes: list[int] = []
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv311, reconnect_on_failure=False)
    client.connect_timeout = TIMEOUT_S
    client.on_connect = lambda _c, _u, _f, code, _p: codes.append(CONNACK_NUMBERS.get(code.value, code.value))
    if context is not None:
        client.tls_set_context(context)
    if user is not None:
        client.username_pw_set(user, "")
    try:
        client.connect(host, port, keepalive=30)
        _wait(client, codes)
    except (OSError, ValueError):
        return None
    finally:
        client.disconnect()
        client._reset_sockets()
    return codes[0] if codes else None


def _wait(client: Client, codes: list[int]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not codes and time.monotonic() < deadline_s and client.loop(0.1) == 0:
        pass
