"""How a gateway gets to its server: TLS, token, provisioning; and what it tells about itself from there."""

import json
import re
import socket
import ssl
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.raw_server import RawServer
from tests.support.running import RunningGateway, wait_until
from tests.support.site import Site, running_site

KEYS = {
    "THINGSBOARD_PROVISION_DEVICE_KEY": "key-1",
    "THINGSBOARD_PROVISION_DEVICE_SECRET": "secret-1",
    "THINGSBOARD_DEVICE_NAME": "pi-new",
}


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        yield server


# --- TLS


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("wrong host name", "Hostname mismatch, certificate is not valid for 'localhost'"),
        ("expired", "certificate has expired"),
        ("unknown CA", "unable to get local issuer certificate"),
        ("no CA of ours given", "certificate"),
    ],
)
def test_a_server_that_is_not_ours_never_sees_the_token(tmp_path: Path, kind: str, said: str) -> None:
    names = ("thingsboard.example",) if kind == "wrong host name" else ("localhost", "127.0.0.1")
    tls = ServerTls.create(tmp_path / "server", names, expired=kind == "expired")
    ca = ServerTls.create(tmp_path / "other").ca_file if kind == "unknown CA" else tls.ca_file
    trusted = {} if kind == "no CA of ours given" else {"THINGSBOARD_CA_CERT": str(ca)}
    with ThingsBoard(tls=tls) as server:
        server.add_device("pi-07", token="SECRET-TOKEN-1")
        gateway = RunningGateway(tmp_path / "site", "localhost", server.port, "SECRET-TOKEN-1", TB_TLS="on", **trusted)
        with gateway:
            wait_until(lambda: gateway.log().count("next try in") >= 2, 30, "two refused attempts")
            assert said in gateway.log()
            assert server.packets.packets() == []
            wait_until(lambda: len(server.handshake_failures) >= 2, 20, "the server has seen both, too")
            assert "SECRET-TOKEN-1" not in gateway.log()
            assert gateway.stop() == 0


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_tls_below_1_2_is_refused_before_the_token_is_sent(tmp_path: Path) -> None:
    tls = ServerTls.create(tmp_path / "tls")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.load_cert_chain(tls.certificate_file, tls.key_file)
    received: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with old.wrap_socket(connection, server_side=True) as secured:
            received.append(secured.recv(1000))

    with RawServer(serve) as raw:
        gateway = RunningGateway(
            tmp_path / "site", "localhost", raw.port, "T1", TB_TLS="on", THINGSBOARD_CA_CERT=str(tls.ca_file)
        )
        with gateway:
            wait_until(lambda: raw.connections >= 2, 30, "two attempts")
            gateway.wait_log("PROTOCOL")
    assert received == []


def test_plain_mqtt_is_said_loudly(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        assert "WARNING gateway: TB_TLS=off: the access token and all data go over the network in the clear" in (
            site.gateway.log()
        )


# --- provisioning


def new_gateway(tmp_path: Path, server: ThingsBoard) -> RunningGateway:
    return RunningGateway(tmp_path / "site", server.host, server.port, "", **KEYS)


def test_a_new_device_provisions_itself_and_keeps_its_token(tmp_path: Path, server: ThingsBoard) -> None:
    server.provisioning.allow("key-1", "secret-1")
    gateway = new_gateway(tmp_path, server)
    with gateway:
        device = server.wait_for_device("pi-new", 30)
        device.wait_connected(30)
        token = gateway.token_path.read_text()
        assert stat.S_IMODE(gateway.token_path.stat().st_mode) == 0o600
        assert len(token) == 20
        assert token not in gateway.log()
        assert "secret-1" not in gateway.log()
        assert gateway.stop() == 0
    with gateway:
        wait_until(lambda: len(device.sessions) == 2, 30, "connected with the kept token")
        assert gateway.token_path.read_text() == token
    assert len(server.provisioning.requests) == 1


def test_a_name_that_exists_is_said_in_plain_words_and_mended_without_a_restart(
    tmp_path: Path, server: ThingsBoard
) -> None:
    server.provisioning.allow("key-1", "secret-1")
    server.add_device("pi-new", token="elsewhere")
    gateway = new_gateway(tmp_path, server)
    with gateway:
        gateway.wait_log("could not provision 'pi-new': most likely a device of this name already exists", 30)
        wait_until(lambda: len(server.provisioning.requests) >= 2, 30, "tried again")
        assert not gateway.token_path.exists()
        server.delete_device("pi-new")
        server.wait_for_device("pi-new", 60).wait_connected(30)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["unknown key", "no answer", "closed", "nonsense", "other credentials"])
def test_provisioning_that_fails_is_tried_for_as_long_as_it_takes(
    tmp_path: Path, server: ThingsBoard, fault: str
) -> None:
    from teg.simulator.thingsboard.faults import next_n

    said = {
        "unknown key": "does not know this provisioning key and secret",
        "no answer": "no provisioning answer within 20 s",
        "closed": "closed the provisioning connection without an answer",
        "nonsense": "the provisioning answer is not JSON",
        "other credentials": "only credentials of type ACCESS_TOKEN are used",
    }[fault]
    provisioning = server.provisioning
    if fault != "unknown key":
        provisioning.allow("key-1", "secret-1")
    if fault == "no answer":
        server.faults.freeze = True
    elif fault == "closed":
        provisioning.close_instead = next_n(2)
    elif fault == "nonsense":
        provisioning.answer_with = b"<html>"
    elif fault == "other credentials":
        provisioning.answer_with = json.dumps(
            {"status": "SUCCESS", "credentialsType": "MQTT_BASIC", "credentialsValue": {"userName": "a"}}
        ).encode()
    gateway = new_gateway(tmp_path, server)
    with gateway:
        gateway.wait_log(said, 60)
        assert not gateway.token_path.exists()
        server.faults.clear()
        provisioning.answer_with = None
        provisioning.allow("key-1", "secret-1")
        server.wait_for_device("pi-new", 60).wait_connected(30)
        assert "secret-1" not in gateway.log()


def test_without_token_and_keys_measurements_are_archived_and_a_person_is_asked(
    tmp_path: Path, server: ThingsBoard
) -> None:
    site = Site(tmp_path, server, token="")
    site.record(10)
    with site.gateway:
        site.gateway.wait_log("no access token")
        wait_until(lambda: site.inbox.count() == 0, 30, "archived")
        site.gateway.token_path.write_text("T1")
        site.wait_delivered()
    site.assert_nothing_lost()
    site.inbox.close()


# --- what it tells about itself


def lines(site: Site) -> list[tuple[int, str, str]]:
    found = []
    for ts, values in site.device.records():
        if "message" in values:
            assert set(values) == {"severity", "message"}
            found.append((ts, values["severity"], values["message"]))
    return found


@pytest.mark.slow
def test_own_log_lines_arrive_also_those_from_before_the_connection(tmp_path: Path, server: ThingsBoard) -> None:
    server.stop_listening()
    site = Site(tmp_path, server)
    with site.gateway:
        site.gateway.wait_log("no connection to the server")
        site.gateway.wait_log("gateway started")
        offline_until_ms = time.time_ns() // 1_000_000
        site.inbox.insert("no JSON at all")
        site.gateway.wait_log("set aside")
        server.start_listening()
        site.device.wait_for(
            lambda _: any("set aside: message is not JSON" in text for _, _, text in lines(site)), 60, "the line"
        )
        found = lines(site)
        assert all(text.startswith("GATEWAY - ") for _, _, text in found)
        early = {(severity, text.split(":")[0]) for ts, severity, text in found if ts <= offline_until_ms}
        assert ("INFO", "GATEWAY - gateway started") in early
        assert ("WARN", "GATEWAY - no connection to the server") in early
        assert len({ts for ts, _, _ in found}) == len(found)  # two lines of one millisecond would be one
        assert len(found) < 60
        time.sleep(6)  # one more round of storing lines: publishing them made no new ones
        assert len(lines(site)) - len(found) <= 2
        wait_until(lambda: site.gateway.rows("SELECT count(*) FROM record WHERE kind = 1") == [(0,)], 120, "not kept")
    site.inbox.close()


def test_a_kill_does_not_lose_stored_log_lines(tmp_path: Path, server: ThingsBoard) -> None:
    server.stop_listening()
    site = Site(tmp_path, server)
    with site.gateway:
        own = "SELECT count(*) FROM outbox WHERE lane = 0"
        wait_until(lambda: (site.gateway.rows(own) or [(0,)]) > [(1,)], 30, "stored log lines")
    server.start_listening()
    with site.gateway:
        site.device.wait_for(
            lambda _: sum("gateway started" in text for _, _, text in lines(site)) == 2, 60, "both starts"
        )
    site.inbox.close()


@pytest.mark.slow
def test_auxiliary_telemetry_comes_every_20_s_whatever_the_backlog(tmp_path: Path, server: ThingsBoard) -> None:
    server.faults.puback_delay_s = 2.0
    with running_site(tmp_path, server) as site:
        names = "ms_since_controller_startup", "ms_since_last_controller_health_check"

        def auxiliary() -> list[tuple[int, dict[str, Any]]]:
            return [(ts, values) for ts, values in site.device.records() if set(values) & set(names)]

        site.record(40_000, filler=800)
        assert auxiliary() == []  # no controller, no heartbeat: nothing to say
        site.inbox.heartbeat(time.time_ns() // 1_000_000 - 5000)
        site.device.wait_for(lambda _: len(auxiliary()) >= 2, 60, "two of them")
        assert site.stored() < site.recorded, "the backlog was meant to last"
        (first_ms, first), (second_ms, second) = auxiliary()[:2]
        assert set(first) == set(second) == {"ms_since_last_controller_health_check"}
        assert 4000 <= first["ms_since_last_controller_health_check"] < 60_000
        assert 15_000 <= second_ms - first_ms <= 40_000


def send_down(site: Site, topic: str, payload: bytes) -> None:
    """Whatever bytes, as no ThingsBoard would send them."""
    session: Any = site.device._state.session
    call: Callable[[Callable[[], None]], None] = site.server._thread.call
    call(lambda: session.send_answer(topic, payload))


ODD = [
    ("v1/devices/me/attributes", b"\xff\xfe"),
    ("v1/devices/me/attributes", b"no json " * 1000),
    ("v1/devices/me/attributes", b"[]"),
    ("v1/devices/me/attributes", b"[" * 100_000),
    ("v1/devices/me/attributes/response/99", b"{}"),
    ("v1/devices/me/rpc/request/7", b""),
    ("v1/devices/me/rpc/request/7", b"null"),
    ("v1/devices/me/rpc/request/7", b'{"params": 1}'),
    ("v1/devices/me/rpc/request/7", b'{"method": 5}'),
    ("v1/devices/me/rpc/request/x", b"{}"),
    ("v1/devices/me/rpc/request/99999999999999", b'{"method":"ping"}'),
    ("some/other/topic", b"\x00" * 5000),
]


def test_odd_messages_are_logged_cut_and_ignored(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        for topic, payload in ODD:
            send_down(site, topic, payload)
        said = re.compile(r"(ignored|refused) a message on")
        wait_until(lambda: len(said.findall(site.gateway.log())) >= len(ODD), 30, "all are ignored or refused")
        site.record(10)
        site.wait_delivered()
        log = site.gateway.log()
        assert max(map(len, log.splitlines())) < 4 * 2048 + 500  # cut to 2 KiB before \x00 is spelled out
        assert "Traceback" not in log
        assert len(site.device.sessions) == 1
        assert site.device.rpc("ping").response == {"message": "Pong"}
