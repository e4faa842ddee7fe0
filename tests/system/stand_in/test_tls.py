"""TLS with a throw-away CA, and the handshakes that must fail."""

import ssl
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.stand_in_client import TELEMETRY, PahoDevice, RawSocket


def handshake(server: ThingsBoard, ca_file: Path, name: str = "localhost") -> str:
    raw = RawSocket(server.host, server.port)
    context = ssl.create_default_context(cafile=str(ca_file))
    try:
        with context.wrap_socket(raw.socket, server_hostname=name) as secured:
            return secured.version() or ""
    finally:
        raw.socket.close()


def test_a_client_that_trusts_the_ca_gets_through(tmp_path: Path) -> None:
    tls = ServerTls.create(tmp_path)
    with ThingsBoard(tls=tls) as server:
        device = server.add_device("pi-07", token="T1")
        client = PahoDevice("T1", ca_file=str(tls.ca_file)).opened(server.host, server.port)
        client.publish(TELEMETRY, '{"ts": 5, "values": {"a": "' + "x" * 60_000 + '"}}')
        assert len(device.latest("a")) == 60_000
        assert handshake(server, tls.ca_file) >= "TLSv1.2"
        device.kick()
        client.wait_closed()
        client.close()


def test_key_is_private_and_the_files_can_be_used_again(tmp_path: Path) -> None:
    assert not ServerTls.in_directory(tmp_path).exists()
    tls = ServerTls.create(tmp_path)
    assert tls.key_file.stat().st_mode & 0o777 == 0o600
    assert ServerTls.in_directory(tmp_path) == tls
    assert tls.exists()


@pytest.mark.parametrize("kind", ["wrong name", "expired", "unknown ca"])
def test_refused_certificates(tmp_path: Path, kind: str) -> None:
    names = ("example.org",) if kind == "wrong name" else ("localhost",)
    tls = ServerTls.create(tmp_path / "server", names, expired=kind == "expired")
    trusted = ServerTls.create(tmp_path / "other").ca_file if kind == "unknown ca" else tls.ca_file
    with ThingsBoard(tls=tls) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(server, trusted)
        server.wait_for(lambda: server.handshake_failures or not server.open_connections, 10)


def test_plain_mqtt_on_a_tls_port_fails_the_handshake(tmp_path: Path) -> None:
    with ThingsBoard(tls=ServerTls.create(tmp_path)) as server:
        raw = RawSocket(server.host, server.port).send(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
        raw.rest()
        raw.socket.close()
        server.wait_for(lambda: server.handshake_failures, 10, "a failed handshake")


def test_restart_and_stop_in_the_middle_of_a_handshake(tmp_path: Path) -> None:
    tls = ServerTls.create(tmp_path)
    with ThingsBoard(tls=tls) as server:
        server.add_device("pi-07", token="T1")
        halfway = RawSocket(server.host, server.port)
        client = PahoDevice("T1", ca_file=str(tls.ca_file)).opened(server.host, server.port)
        server.restart()
        client.wait_closed()
        client.close()
        server.stop_listening()
        server.start_listening()
        late = RawSocket(server.host, server.port)
    halfway.socket.close()
    late.socket.close()
