"""Looks at the server as a stranger: name, port, certificate, and what it answers to a CONNECT.

One question a call, no session kept. A token is only sent where the caller says so: a second session with the token of
a running gateway would end that one's.
"""

import functools
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, Protocol

from paho.mqtt.client import Client, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from teg.domain.errors import Refused, Unavailable
from teg.domain.server.connection_faults import ProxyFailed, UpgradeRefused
from teg.domain.server.login import Login
from teg.domain.server.reconnect import CONNACK_NUMBERS

TIMEOUT_S = 5.0


class Way(Protocol):
    """The steps to the server. A ProxyFailed goes through to the caller: it says itself what is wrong."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> ssl.SSLContext | None: ...
    @property
    def path(self) -> str: ...
    def to_proxy(self, timeout_s: float) -> socket.socket: ...
    def tcp(self, timeout_s: float) -> socket.socket: ...
    def open(self, timeout_s: float) -> Any: ...


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


def proxy_ms(way: Way) -> float:
    """How long a TCP connection to the proxy takes; raises Unavailable."""
    return _took_ms(way.to_proxy)


def connect_ms(way: Way) -> float:
    """How long a TCP connection to the server takes, through the proxy where there is one; raises Unavailable."""
    return _took_ms(way.tcp)


def _took_ms(step: Any) -> float:
    started_s = time.monotonic()
    try:
        with step(TIMEOUT_S):
            return (time.monotonic() - started_s) * 1000
    except OSError as error:
        raise Unavailable(error.strerror or str(error)) from error


def certificate(way: Way, context: ssl.SSLContext) -> Certificate:
    """A handshake that verifies.

    Raises:
        Refused: the handshake failed; the message is OpenSSL's.
        Unavailable: no connection.
    """
    try:
        with way.tcp(TIMEOUT_S) as raw:
            raw.settimeout(TIMEOUT_S)
            return _handshake(raw, way.host, context)
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


def speaks_tls(way: Way) -> bool:
    """Whether there is TLS at all, whatever its certificate; nothing is sent through it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with way.tcp(TIMEOUT_S) as raw:
            raw.settimeout(TIMEOUT_S)
            with context.wrap_socket(raw, server_hostname=way.host):
                return True
    except OSError:
        return False


def upgrade(way: Way) -> None:
    """All the way to where MQTT begins.

    Raises:
        Refused: no WebSocket is opened; the message has cause and remedy.
        Unavailable: no connection.
    """
    try:
        way.open(TIMEOUT_S).close()
    except UpgradeRefused as reason:
        raise Refused(str(reason)) from reason
    except OSError as error:
        raise Unavailable(str(error)) from error


#: MQTT 3.1.1, clean session, no user, an empty client id: whoever speaks MQTT answers with a CONNACK.
_STRANGERS_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x1e\x00\x00"
_CONNACK = 0x20


@functools.lru_cache(maxsize=1)
def who_answers(way: Way) -> str:
    """What speaks there, through all that the way has: "MQTT", "HTTP", the beginning of what else it says; empty when
    it says nothing or closes."""
    try:
        stream = way.open(TIMEOUT_S)
    except (OSError, Unavailable):
        return ""
    try:
        stream.settimeout(TIMEOUT_S)
        stream.send(_STRANGERS_CONNECT)
        return _named(stream.recv(200))
    except OSError:
        return ""
    finally:
        stream.close()


def _named(greeting: bytes) -> str:
    if greeting[:1] == bytes([_CONNACK]):
        return "MQTT"
    return "HTTP" if greeting.startswith(b"HTTP/") else greeting.decode("latin-1").strip()


def connack(way: Way, login: Login | None) -> int | None:
    """The number the server answers to a CONNECT, 0 = welcome; None when it closes or is silent instead."""
    codes: list[int] = []
    client = _Client(way, "" if login is None else login.client_id)
    client.connect_timeout = TIMEOUT_S
    client.on_connect = lambda _c, _u, _f, code, _p: codes.append(CONNACK_NUMBERS.get(code.value, code.value))
    if login is not None:
        client.username_pw_set(login.user, login.password)
    try:
        client.connect(way.host, way.port, keepalive=30)
        _wait(client, codes)
    except (OSError, ValueError, ProxyFailed, UpgradeRefused):
        return None
    finally:
        client.disconnect()
        client._reset_sockets()
    return codes[0] if codes else None


class _Client(Client):
    def __init__(self, way: Way, client_id: str) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv311, reconnect_on_failure=False)
        self._way = way

    def _create_socket(self) -> Any:
        return self._way.open(self.connect_timeout)


def _wait(client: Client, codes: list[int]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not codes and time.monotonic() < deadline_s and client.loop(0.1) == 0:
        pass
