"""What may be wrong between the gateway and its server: a proxy, a WebSocket."""

import socket
from pathlib import Path

from tests.support.client_certificates import Pair, issue
from tests.support.outside_programs import free_port, tinyproxy
from tests.support.planted_faults.site import Site, fault
from tests.support.raw_server import RawServer
from tests.support.web_socket_peer import read_head


def _proxy(site: Site, login: str = "", ports: tuple[int, ...] = ()) -> str:
    folder: Path = site.directory / "proxy"
    folder.mkdir()
    return site.stack.enter_context(tinyproxy(folder, login, ports)).url


@fault(r"✗ proxy: 127\.0\.0\.1:\d+ cannot be reached: Connection refused → TB_PROXY has to name the site's HTTP proxy")
def no_proxy_there(site: Site) -> None:
    site.environment["TB_PROXY"] = f"http://127.0.0.1:{free_port()}"


@fault(
    r"✗ server port: the proxy 127\.0\.0\.1:\d+ wants a user and a password \(407\) → TB_PROXY=http://user:password@"
)
def a_proxy_that_wants_a_login(site: Site) -> None:
    url = _proxy(site, "teg:s3cret")
    site.environment["TB_PROXY"] = url.replace("teg:s3cret@", "")


@fault(r"✗ server port: the proxy \S+ does not take this user and password \(40[17]\) → correct them in TB_PROXY")
def a_wrong_password_for_the_proxy(site: Site) -> None:
    site.environment["TB_PROXY"] = _proxy(site, "teg:s3cret").replace("s3cret", "wrong-word")


@fault(
    r"✗ server port: the proxy \S+ does not allow a connection to localhost:\d+ \(403\) → have it allowed .* port 443"
)
def a_proxy_that_allows_443_only(site: Site) -> None:
    site.environment["TB_PROXY"] = _proxy(site, ports=(443,))


@fault(r"✗ server port: the proxy \S+ cannot reach localhost:\d+ \(50\d\) → check TB_HOST and TB_PORT")
def a_server_that_the_proxy_cannot_reach(site: Site) -> None:
    site.environment |= {"TB_PROXY": _proxy(site), "TB_PORT": str(free_port())}


def _web_server(site: Site, answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(answer)

    raw = site.stack.enter_context(RawServer(serve))
    ours = {"TB_HOST": "127.0.0.1", "TB_PORT": str(raw.port), "TB_TLS": "", "TB_TRANSPORT": "ws"}
    site.environment |= ours


@fault(r"✗ websocket: the web server knows no /mqtt \(404\) → TB_WEBSOCKET_PATH has to be the path")
def a_wrong_path_for_the_websocket(site: Site) -> None:
    _web_server(site, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


@fault(r"✗ websocket: the web server does not open a WebSocket on /mqtt \(200\) → .* has to pass the upgrade on")
def a_web_page_instead_of_a_websocket(site: Site) -> None:
    _web_server(site, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def _shows(site: Site, pair: Pair) -> None:
    site.environment |= {"THINGSBOARD_ACCESS_TOKEN": "", **pair.settings}


@fault(r"✗ client certificate: TB_CLIENT_KEY=\S+ is not the key of TB_CLIENT_CERT=\S+ → take both from the same pair")
def another_ones_key(site: Site) -> None:
    ours, other = issue(site.directory / "a"), issue(site.directory / "b")
    _shows(site, Pair(ours.certificate, other.key, ours.authority))


@fault(r"✗ client certificate: \S+ expired 3 days ago → renew it, also in the device's credentials on the server")
def an_expired_client_certificate(site: Site) -> None:
    _shows(site, issue(site.directory / "a", days=-3, since_days=9))


@fault(
    r"✗ access token: the server does not know this client id, user name and password \(CONNACK 5\) → compare TB_MQTT"
)
def a_wrong_user(site: Site) -> None:
    site.environment |= {"THINGSBOARD_ACCESS_TOKEN": "", "TB_MQTT_USER": "nobody", "TB_MQTT_PASSWORD": "none"}
