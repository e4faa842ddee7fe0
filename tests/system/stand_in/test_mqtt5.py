"""The MQTT 5 dialect: reason codes where 3.1.1 closes or lies."""

from collections.abc import Iterator

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.stand_in_client import (
    ATTRIBUTES,
    RPC,
    TELEMETRY,
    PahoDevice,
    RawSocket,
    connect_packet,
    eventually,
    packet,
    text,
)

V5 = MQTTProtocolVersion.MQTTv5


@pytest.fixture
def client(server: ThingsBoard, device: Device) -> Iterator[PahoDevice]:
    client = PahoDevice("T1", version=V5).opened(server.host, server.port)
    yield client
    client.close()


def test_the_usual_traffic(client: PahoDevice, device: Device) -> None:
    client.answer = lambda _topic, payload: payload
    assert client.subscribe(ATTRIBUTES, RPC) == [1, 1]
    assert client.publish(TELEMETRY, '{"ts": 5, "values": {"a": 1}}') == 0
    device.set_shared({"b": 2})
    assert client.wait_message(ATTRIBUTES) == [b'{"b":2}']
    assert device.rpc("ping").response == {"method": "ping", "params": None}
    assert device.telemetry() == {("a", 5): 1}
    assert device.sessions[0].version == 5


def test_bad_payload_is_told_and_the_session_stays(client: PahoDevice, device: Device) -> None:
    assert client.publish(TELEMETRY, "no json") == 0x99
    assert client.publish(ATTRIBUTES, "[]") == 0x99
    assert client.publish(TELEMETRY, '{"a": 1}') == 0
    assert len(device.sessions) == 1


@pytest.mark.parametrize("topic", ["v1/devices/me/attributes/request/x", "v1/devices/me/rpc/response/x"])
def test_bad_request_id_is_told_and_the_session_stays(client: PahoDevice, topic: str) -> None:
    assert client.publish(topic, "{}") == 0x99
    assert client.publish(TELEMETRY, '{"a": 1}') == 0


def test_bad_payload_with_qos_0_closes(client: PahoDevice) -> None:
    client.send(TELEMETRY, "no json", qos=0)
    assert client.wait_closed() == 0x99


def test_unknown_topic_is_told(client: PahoDevice) -> None:
    assert client.publish("v1/devices/me/telemetri", "{}") == 0x90


def test_refused_filter(client: PahoDevice) -> None:
    assert client.subscribe("#", ATTRIBUTES) == [0x8F, 1]


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        (TELEMETRY, '{"ts": "noon", "values": {}}', 0x8B),
        (TELEMETRY, '{"ts": [1, 2], "values": {}}', 0x8B),
        ("v1/devices/me/rpc/request/1", '{"params": {}}', 0x8B),
        ("v1/devices/me/rpc/request/x", '{"method": "m"}', 0x8B),
        (TELEMETRY, '{"a":"' + "x" * 70_000 + '"}', 0x81),
        ("v2/sw/request/1/chunk/0", "100", 0x83),
    ],
)
def test_disconnect_reasons(client: PahoDevice, topic: str, payload: str, reason: int) -> None:
    client.send(topic, payload)
    client.wait_closed()
    assert client.disconnects[-1] == (reason, True)


def test_second_session_and_revoked_token(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    second = PahoDevice("T1", version=V5).opened(server.host, server.port)
    assert client.wait_closed() == 0x8E
    device.revoke_token()
    assert second.wait_closed() == 0x98
    second.close()


def test_inactivity() -> None:
    with ThingsBoard(limits=ServerLimits(inactivity_timeout_s=0.1)) as server:
        server.add_device("pi-07", token="T1")
        client = PahoDevice("T1", version=V5).opened(server.host, server.port)
        assert client.wait_closed() == 0xA0
        client.close()


def test_rate_limit_on_publish_and_on_connect() -> None:
    with ThingsBoard(limits=ServerLimits(rate_limits="2:600")) as server:
        server.add_device("pi-07", token="T1")
        client = PahoDevice("T1", version=V5).opened(server.host, server.port)
        client.publish(TELEMETRY, "{}")
        client.send(TELEMETRY, "{}")
        assert client.wait_closed() == 0x83
        client.close()
        assert connack(server, connect_packet("T1", level=5)) == 0x9F


def connack(server: ThingsBoard, connect: bytes) -> int:
    raw = RawSocket(server.host, server.port).send(connect)
    answer = raw.packet()
    if answer[3]:
        assert raw.rest() == bytes((0xE0, 2, answer[3], 0))
    raw.socket.close()
    return answer[3]


@pytest.mark.parametrize(
    ("connect", "code"),
    [
        (connect_packet("T1", level=5), 0x00),
        (connect_packet("wrong", level=5), 0x86),
        (connect_packet(None, client_id="unknown", level=5), 0x85),
        (connect_packet(None, level=5), 0x87),
    ],
)
def test_connack_codes_and_the_disconnect_after_a_refusal(
    server: ThingsBoard, device: Device, connect: bytes, code: int
) -> None:
    assert connack(server, connect) == code


def test_unavailable_server(server: ThingsBoard, device: Device) -> None:
    server.faults.connack_codes = [3]
    assert connack(server, connect_packet("T1", level=5)) == 0x88


def test_unsubscribe_codes(server: ThingsBoard, device: Device) -> None:
    raw = RawSocket(server.host, server.port)
    raw.send(connect_packet("T1", level=5))
    assert raw.packet() == b"\x20\x03\x00\x00\x00"
    raw.send(packet(0x82, b"\x00\x01\x00" + text(ATTRIBUTES) + b"\x01"))
    assert raw.packet() == b"\x90\x04\x00\x01\x00\x01"
    raw.send(packet(0xA2, b"\x00\x02\x00" + text(ATTRIBUTES) + text(RPC) + text("#")))
    assert raw.packet() == b"\xb0\x06\x00\x02\x00\x00\x11\x8f"
    raw.socket.close()


def test_too_many_packets_before_the_connack(server: ThingsBoard, device: Device) -> None:
    server.faults.connack_delay_s = 30
    raw = RawSocket(server.host, server.port).send(connect_packet("T1", level=5), b"\xc0\x00" * 101)
    assert raw.rest() == b"\xe0\x02\x97\x00"
    raw.socket.close()


def test_provisioning(server: ThingsBoard) -> None:
    server.provisioning.allow("key", "secret")
    client = PahoDevice("provision", version=V5).opened(server.host, server.port)
    assert client.subscribe("/provision/response", "#") == [1, 0x8F]
    client.publish("/provision/request", '{"provisionDeviceKey":"key","provisionDeviceSecret":"secret"}')
    client.wait_message("/provision/response")
    client.send("/provision/request", "no json")
    assert client.wait_closed() == 0x99
    client.close()
    eventually(lambda: len(server.devices) == 1)
