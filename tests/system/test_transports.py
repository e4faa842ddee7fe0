"""The gateway where only port 443 or a proxy leaves the site: nothing is lost, no password is shown."""

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.outside_programs import TinyProxy, tinyproxy, websockify
from tests.support.site import Site

LOGIN = "teg:pr0xy-s3cret"


#: What stands before the server, the settings that lead through it, and the proxy among it.
Passage = tuple[ThingsBoard, dict[str, str], TinyProxy | None]


def tls_through_a_proxy(path: Path, stack: ExitStack) -> Passage:
    tls = ServerTls.create(path / "tls", ["localhost"])
    server = stack.enter_context(ThingsBoard(tls=tls))
    proxy = stack.enter_context(tinyproxy(path, LOGIN))
    settings = {"TB_HOST": "localhost", "TB_TLS": "on", "THINGSBOARD_CA_CERT": str(tls.ca_file), "TB_PROXY": proxy.url}
    return server, settings, proxy


def wss(path: Path, stack: ExitStack) -> Passage:
    tls = ServerTls.create(path / "tls", ["localhost"])
    server = stack.enter_context(ThingsBoard())
    port = stack.enter_context(websockify(path, server.port, tls))
    settings = {
        "TB_HOST": "localhost",
        "TB_PORT": str(port),
        "TB_TLS": "",
        "TB_TRANSPORT": "wss",
        "THINGSBOARD_CA_CERT": str(tls.ca_file),
    }
    return server, settings, None


def wss_through_a_proxy(path: Path, stack: ExitStack) -> Passage:
    server, settings, _ = wss(path, stack)
    proxy = stack.enter_context(tinyproxy(path, LOGIN, ports=(int(settings["TB_PORT"]),)))
    return server, {**settings, "TB_PROXY": proxy.url, "TB_MQTT_VERSION": "auto"}, proxy


@pytest.mark.parametrize("passage", [tls_through_a_proxy, wss_through_a_proxy])
def test_records_calls_and_a_broken_connection(passage: Callable[[Path, ExitStack], Passage], tmp_path: Path) -> None:
    with ExitStack() as stack:
        server, settings, proxy = passage(tmp_path, stack)
        site = Site(tmp_path, server, **settings)
        stack.enter_context(site.gateway)
        stack.callback(site.inbox.close)
        site.device.wait_connected(30)
        site.record(300, filler=2000)
        assert site.device.rpc("ping", timeout_s=20).response == {"message": "Pong"}
        site.wait_delivered()
        connections = len(site.device.sessions)
        server.drop_connections()
        site.record(100)
        site.device.wait_for(lambda device: len(device.sessions) > connections, 60, "a new session")
        site.wait_delivered()
        site.device.set_shared({"x": "y" * 500_000})
        assert site.device.rpc("ping", timeout_s=20).response == {"message": "Pong"}
        assert site.gateway.stop(signal.SIGTERM) == 0
        site.assert_nothing_lost()
        if proxy is not None:
            asked = set(proxy.connects())
            assert asked == {f"{settings.get('TB_HOST', server.host)}:{settings.get('TB_PORT', server.port)}"}
        assert "s3cret" not in site.gateway.log()
