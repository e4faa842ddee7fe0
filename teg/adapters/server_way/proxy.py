"""A tunnel through an HTTP proxy: CONNECT, RFC 9110 9.3.6, with Basic authentication."""

import base64
import socket

import h11

from teg.adapters.server_way.deadline import Deadline
from teg.domain.server.connection_faults import ProxyFailed, no_proxy_answers, proxy_refused
from teg.settings import ProxyAddress


def tunnel(connection: socket.socket, proxy: ProxyAddress, host: str, port: int, deadline: Deadline) -> None:
    """From here on `connection` is one to `host`, whose name the proxy looks up.

    Raises:
        ProxyFailed: with cause and remedy.
        OSError: the connection to the proxy ended, or its answer took too long.
    """
    http = h11.Connection(h11.CLIENT)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    request = h11.Request(method="CONNECT", target=target, headers=[("Host", target), *_authorization(proxy)])
    deadline.send(connection, http.send(request) + (http.send(h11.EndOfMessage()) or b""))
    try:
        answer = _answer(http, connection, deadline)
    except h11.RemoteProtocolError as error:
        raise ProxyFailed(no_proxy_answers(str(proxy))) from error
    if not 200 <= answer.status_code < 300:
        schemes = [value.split()[0].decode("latin-1") for name, value in answer.headers if name == _WANTED and value]
        raise ProxyFailed(proxy_refused(answer.status_code, str(proxy), target, bool(proxy.user), schemes))
    if http.trailing_data[0]:  # neither TLS nor MQTT begins with the server: this is somebody else's
        raise ProxyFailed(no_proxy_answers(str(proxy)))


_WANTED = b"proxy-authenticate"


def _authorization(proxy: ProxyAddress) -> list[tuple[str, str]]:
    if not proxy.user:
        return []
    credentials = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
    return [("Proxy-Authorization", f"Basic {credentials}")]


def _answer(http: h11.Connection, connection: socket.socket, deadline: Deadline) -> h11.Response:
    """The size of its head is bounded by h11, its time by the deadline."""
    while True:
        event = http.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            http.receive_data(deadline.receive(connection, 4096))
        elif not isinstance(event, h11.InformationalResponse):
            raise ConnectionResetError("the proxy closed the connection without an answer")
