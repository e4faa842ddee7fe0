"""The steps to the server in their order, each for itself (`teg check` takes them one by one) and all at once."""

import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from teg.adapters.server_way.deadline import Deadline
from teg.domain.server.connection_faults import ProxyFailed, proxy_unreachable
from teg.settings import ConnectionSettings, ProxyAddress


class Stream(Protocol):
    """What the steps lead to: as much of a socket as paho needs."""

    def recv(self, most: int, /) -> bytes: ...
    def send(self, data: bytes | bytearray, /) -> int: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def settimeout(self, timeout_s: float | None, /) -> None: ...


class Place(Protocol):
    """Of `Settings`, what leads to the server."""

    @property
    def tb_host(self) -> str: ...
    @property
    def tb_port(self) -> int: ...
    @property
    def connection(self) -> ConnectionSettings: ...


@dataclass(frozen=True, slots=True)
class Way:
    """`tls` None: in the clear. `path`: of the WebSocket, empty for MQTT itself. `proxy` None: straight."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    path: str = ""
    proxy: ProxyAddress | None = None

    @classmethod
    def of(cls, settings: Place, tls: ssl.SSLContext | None) -> "Way":
        link = settings.connection
        return cls(settings.tb_host, settings.tb_port, tls, link.websocket_path, link.proxy)

    def open(self, timeout_s: float) -> Stream:
        """All the way; nothing stays open when a step fails.

        Raises:
            ProxyFailed, UpgradeRefused: with cause and remedy.
            OSError: also of TLS; ValueError: a host name that cannot be encoded.
        """
        deadline = Deadline(timeout_s)
        connection = self._encrypted(deadline)
        if not self.path:
            return connection
        from teg.adapters.server_way.websocket import WebSocketStream  # what is not used is not loaded

        try:
            return WebSocketStream(connection, self._in_header(), self.path, deadline)
        except BaseException:
            connection.close()
            raise

    def tcp(self, timeout_s: float) -> socket.socket:
        """As far as TCP goes: to the server, through the proxy where there is one."""
        return self._tcp(Deadline(timeout_s))

    def to_proxy(self, timeout_s: float) -> socket.socket:
        """The first step alone."""
        if self.proxy is None:
            raise ValueError("there is no proxy")
        return self._first(self.proxy.host, self.proxy.port, Deadline(timeout_s))

    def _encrypted(self, deadline: Deadline) -> socket.socket:
        connection = self._tcp(deadline)
        if self.tls is None:
            return connection
        try:
            wrapped = self.tls.wrap_socket(connection, server_hostname=self.host, do_handshake_on_connect=False)
        except BaseException:
            connection.close()
            raise
        try:
            wrapped.settimeout(deadline.left_s())
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped

    def _tcp(self, deadline: Deadline) -> socket.socket:
        if self.proxy is None:
            return self._first(self.host, self.port, deadline)
        from teg.adapters.server_way.proxy import tunnel  # what is not used is not loaded

        try:
            connection = self._first(self.proxy.host, self.proxy.port, deadline)
        except OSError as error:
            raise ProxyFailed(proxy_unreachable(str(self.proxy), error.strerror or str(error))) from error
        try:
            tunnel(connection, self.proxy, self.host, self.port, deadline)
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _first(host: str, port: int, deadline: Deadline) -> socket.socket:
        return socket.create_connection((host, port), timeout=deadline.left_s())

    def _in_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"
