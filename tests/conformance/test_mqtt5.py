"""MQTT 5: reason codes where the older protocol closes or acknowledges without a word."""

from collections.abc import Iterator

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.support.conformance import Made, Report, Tenant
from tests.support.stand_in_client import ATTRIBUTES, TELEMETRY, PahoDevice, RawSocket, connect_packet

V5 = MQTTProtocolVersion.MQTTv5


@pytest.fixture
def device(tenant: Tenant) -> Made:
    return tenant.device()


def opened(tenant: Tenant, device: Made) -> PahoDevice:
    return PahoDevice(device.token, version=V5).opened(tenant.target.host, tenant.target.port)


@pytest.fixture
def client(tenant: Tenant, device: Made) -> Iterator[PahoDevice]:
    client = opened(tenant, device)
    yield client
    client.close()


@pytest.mark.parametrize(
    ("what", "topic", "payload", "code"),
    [
        ("bad telemetry", TELEMETRY, "no json", 0x99),
        ("attributes as an array", ATTRIBUTES, "[]", 0x99),
        ("an attribute request whose id is no number", "v1/devices/me/attributes/request/x", "{}", 0x99),
        ("an unknown topic", "v1/devices/me/telemetri", "{}", 0x90),
    ],
)
def test_what_is_refused_is_told_and_the_session_stays(
    client: PahoDevice, report: Report, what: str, topic: str, payload: str, code: int
) -> None:
    report.check(f"PUBACK for {what}", code, client.publish(topic, payload))
    report.check(f"PUBACK for the next publish after {what}", 0, client.publish(TELEMETRY, "{}"))


@pytest.mark.parametrize(
    ("what", "topic", "payload", "code"),
    [
        ("ts as text", TELEMETRY, '{"ts": "noon", "values": {}}', 0x8B),
        ("an RPC request without a method", "v1/devices/me/rpc/request/1", '{"params": {}}', 0x8B),
        ("more than 65,536 bytes", TELEMETRY, '{"a": "' + "x" * 65_536 + '"}', 0x81),
    ],
)
def test_what_closes_the_session_comes_with_a_reason(
    client: PahoDevice, report: Report, what: str, topic: str, payload: str, code: int
) -> None:
    client.send(topic, payload)
    client.wait_closed()
    report.check(f"DISCONNECT for {what}", (code, True), client.disconnects[-1])


def test_the_older_session_is_told_why_it_ends(
    tenant: Tenant, device: Made, client: PahoDevice, report: Report
) -> None:
    newer = opened(tenant, device)
    client.wait_closed()
    report.check("DISCONNECT for a second session of the device", (0x8E, True), client.disconnects[-1])
    newer.close()


def test_refused_filters(client: PahoDevice, report: Report) -> None:
    report.check("SUBACK for # and for attributes", [0x8F, 1], client.subscribe("#", ATTRIBUTES))


@pytest.mark.parametrize(
    ("what", "connect", "code"),
    [
        ("an unknown token", connect_packet("no such token", level=5), 0x86),
        ("an unknown client id alone", connect_packet(None, client_id="no such client", level=5), 0x85),
        ("nothing at all", connect_packet(None, level=5), 0x87),
    ],
)
def test_refused_logins(tenant: Tenant, report: Report, what: str, connect: bytes, code: int) -> None:
    raw = RawSocket(tenant.target.host, tenant.target.port).send(connect)
    report.check(f"CONNACK for {what}", code, raw.packet()[3])
    raw.socket.close()
