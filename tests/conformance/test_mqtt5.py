"""MQTT 5: reason codes where the older protocol closes or acknowledges without a word."""

import uuid
from collections.abc import Iterator

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.support.conformance import Made, Tenant
from tests.support.conformance_report import Report
from tests.support.stand_in_client import ATTRIBUTES, RPC, TELEMETRY, PahoDevice, connect_packet, packet, text

V5 = MQTTProtocolVersion.MQTTv5


@pytest.fixture
def device(tenant: Tenant) -> Made:
    return tenant.device()


def opened(tenant: Tenant, device: Made) -> PahoDevice:
    return tenant.client(device, version=V5)


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
        (
            "a list of names in an attribute request",
            "v1/devices/me/attributes/request/1",
            '{"sharedKeys": ["a", "b"]}',
            0x99,
        ),
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


def test_bad_content_with_qos_0_closes(client: PahoDevice, report: Report) -> None:
    client.send(TELEMETRY, "no json", qos=0)
    client.wait_closed()
    report.check("DISCONNECT for bad telemetry with QoS 0", (0x99, True), client.disconnects[-1])


@pytest.mark.parametrize("what", ["changed credentials", "a deleted device"])
def test_a_session_that_the_operator_ends(
    tenant: Tenant, device: Made, client: PahoDevice, report: Report, what: str
) -> None:
    if what == "a deleted device":
        tenant.rest.delete(f"/api/device/{device.id}")
    else:
        current = tenant.rest.get(f"/api/device/{device.id}/credentials").json()
        tenant.rest.post("/api/device/credentials", {**current, "credentialsId": uuid.uuid4().hex[:20]})
    client.wait_closed()
    report.check(f"DISCONNECT for {what}", (0x98, True), client.disconnects[-1])


def test_the_connack_has_no_properties(tenant: Tenant, device: Made, report: Report) -> None:
    with tenant.target.raw().send(connect_packet(device.token, level=5)) as raw:
        report.check("CONNACK of MQTT 5: no limits are advertised", b"\x20\x03\x00\x00\x00", raw.packet())


def test_unsubscribing(tenant: Tenant, device: Made, report: Report) -> None:
    with tenant.raw(device, 5) as raw:
        raw.send(packet(0x82, b"\x00\x01\x00" + text(ATTRIBUTES) + b"\x01"))
        raw.packet()
        names = (ATTRIBUTES, RPC, "no/such/topic")
        raw.send(packet(0xA2, b"\x00\x02\x00" + b"".join(map(text, names))))
        report.check("UNSUBACK: subscribed, not subscribed, no topic", [0x00, 0x11, 0x8F], list(raw.packet()[-3:]))


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
    with tenant.target.raw().send(connect) as raw:
        report.check(f"CONNACK for {what}", code, raw.packet()[3])
        report.check(f"{what}: a DISCONNECT follows", 0xE0, raw.packet()[0])
