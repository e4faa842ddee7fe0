"""Connecting, the one session of a device, and which filters are granted."""

import json

import pytest

from tests.support.conformance import Made, Tenant
from tests.support.conformance_report import Report
from tests.support.stand_in_client import (
    ATTRIBUTES,
    RESPONSES,
    RPC,
    TELEMETRY,
    connect_packet,
    packet,
    publish_packet,
    subscribe_packet,
)

ACCEPTED = b"\x20\x02\x00\x00"
PUBACK = b"\x40\x02\x00"


def test_login(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    for what, connect, code in (
        ("the token as user name", connect_packet(device.token), 0),
        ("protocol 3.1", connect_packet(device.token, client_id="c", name="MQIsdp", level=3), 0),
        ("a password that nobody set", connect_packet(device.token, password="whatever"), 0),
        ("an unknown token", connect_packet("no such token"), 5),
        ("an unknown token with a password", connect_packet("no such token", password="p"), 5),
        ("an unknown client id alone", connect_packet(None, client_id="no such client"), 2),
        ("nothing at all", connect_packet(None), 5),
    ):
        with tenant.target.raw().send(connect) as raw:
            report.check(f"CONNACK for {what}", code, raw.packet()[3])


def test_a_refusal_closes(tenant: Tenant, report: Report) -> None:
    with tenant.target.raw().send(connect_packet("no such token")) as raw:
        raw.packet()
        report.check("after the CONNACK of a refusal the connection ends", b"", raw.rest())


def test_basic_credentials(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    current = tenant.rest.get(f"/api/device/{device.id}/credentials").json()
    user = f"user-{device.token}"
    fields = {"clientId": None, "userName": user, "password": "secret"}
    changed = {**current, "credentialsType": "MQTT_BASIC", "credentialsId": None}
    tenant.rest.post("/api/device/credentials", {**changed, "credentialsValue": json.dumps(fields)})
    for what, connect, code in (
        ("user name and password", connect_packet(user, password="secret"), 0),
        ("any client id, where none was set", connect_packet(user, client_id="any", password="secret"), 0),
        ("a wrong password: 5, never 4", connect_packet(user, password="wrong"), 5),
        ("the former token", connect_packet(device.token), 5),
    ):
        with tenant.target.raw().send(connect) as raw:
            report.check(f"basic credentials, CONNACK for {what}", code, raw.packet()[3])


@pytest.mark.parametrize(
    ("what", "connect"),
    [
        ("protocol level 2", {"level": 2}),
        ("protocol level 6", {"level": 6}),
        ("protocol 3.1 with a client id of 24 characters", {"level": 3, "name": "MQIsdp", "client_id": "x" * 24}),
        ("another protocol's name", {"name": "MQTQ"}),
    ],
)
def test_what_is_no_connect_closes_without_a_connack(
    tenant: Tenant, report: Report, what: str, connect: dict[str, str]
) -> None:
    with tenant.target.raw().send(connect_packet(tenant.device().token, **connect)) as raw:  # type: ignore[arg-type]
        report.check(f"{what}: closed without a CONNACK", b"", raw.rest())


def test_packets_right_behind_the_connect(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    behind = [subscribe_packet(7, (RPC, 1)), publish_packet(TELEMETRY, b"{}", 8), packet(0xC0, b"")]
    with tenant.target.raw().send(connect_packet(device.token), *behind) as raw:
        seen = [raw.packet() for _ in range(4)]
    expected = [ACCEPTED, b"\x90\x03\x00\x07\x01", PUBACK + b"\x08", b"\xd0\x00"]
    report.check("SUBSCRIBE, PUBLISH and PINGREQ before the CONNACK are answered", sorted(expected), sorted(seen))


def test_a_second_connect_is_accepted_once_more(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    with tenant.raw(device) as raw:
        report.check("CONNACK for a second CONNECT", ACCEPTED, raw.send(connect_packet(device.token)).packet())
        report.check("PUBACK afterwards", PUBACK + b"\x01", raw.send(publish_packet(TELEMETRY, b"{}")).packet())


def test_the_newer_session_of_a_device_wins(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    with tenant.raw(device) as older:
        newer = tenant.client(device)
        report.check("the older session ends without a packet", b"", older.rest())
        report.check("the newer one goes on", 0, newer.publish(TELEMETRY, "{}"))
        newer.close()


def test_a_client_id_is_nobodys_own(tenant: Tenant, report: Report) -> None:
    first = tenant.client(tenant.device(), client_id="the-same")
    second = tenant.client(tenant.device(), client_id="the-same")
    codes = [client.publish(TELEMETRY, "{}") for client in (second, first)]
    report.check("two devices with one client id do not disturb each other", [0, 0], codes)
    report.check("neither was closed", [], first.disconnects + second.disconnects)
    first.close()
    second.close()


FILTERS = {
    RPC: 1,
    ATTRIBUTES: 1,
    RESPONSES: 1,
    "v1/devices/me/rpc/response/+": 1,
    "v2/a": 1,
    "v2/a/res/+": 1,
    "v2/a/res/j/+": 1,
    "v2/r/req/+": 1,
    "v2/r/req/j/+": 1,
    "v2/r/res/+": 1,
    "v2/fw/response/+/chunk/+": 1,
    "v2/sw/response/+/chunk/+": 1,
    "v2/fw/error": 1,
    "v2/sw/error": 1,
    "v1/gateway/attributes": 1,
    "v1/gateway/rpc": 1,
    "v2/fw/response/+": 0x80,
    "v1/devices/me/#": 0x80,
    "#": 0x80,
    "+": 0x80,
    "v1/devices/me/attributes/response/1": 0x80,
    "v1/devices/me/telemetry": 0x80,
    "v1/devices/+/attributes": 0x80,
}


def test_granted_filters(tenant: Tenant, report: Report) -> None:
    client = tenant.client(tenant.device())
    codes = client.subscribe(*FILTERS)
    client.close()
    for (name, expected), code in zip(FILTERS.items(), codes, strict=True):
        report.check(f"SUBACK for {name}", expected, code)


def test_granted_qos(tenant: Tenant, report: Report) -> None:
    with tenant.raw(tenant.device()) as raw:
        raw.send(subscribe_packet(1, (RPC, 0), (ATTRIBUTES, 1), (RESPONSES, 2)))
        report.check("granted QoS for 0, 1, 2", b"\x90\x05\x00\x01\x00\x01\x01", raw.packet())


def test_session_present_is_a_lie(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    for clean, present in ((False, True), (True, False)):
        client = tenant.client(device, client_id="c", clean=clean)
        report.check(f"session present with clean session {clean}", present, client.connacks[0][1])
        client.close()


@pytest.fixture
def left(tenant: Tenant) -> Made:
    """A device whose session without a clean start ended while it was subscribed."""
    device = tenant.device()
    client = tenant.client(device, client_id="c", clean=False)
    client.subscribe(ATTRIBUTES)
    client.close()
    return device


def test_nothing_is_kept_of_a_session(tenant: Tenant, report: Report, left: Made) -> None:
    tenant.share(left, {"a": 1})
    client = tenant.client(left, client_id="c", clean=False)
    tenant.share(left, {"a": 2})
    client.publish("v1/devices/me/attributes/request/1", "{}")
    client.wait_message("v1/devices/me/attributes/response/1")
    client.publish(TELEMETRY, "{}")
    topics = [topic for topic, _, _ in client.messages]
    report.check("subscriptions and messages of the former session", ["v1/devices/me/attributes/response/1"], topics)
    client.close()


def test_publishing_with_qos_0_and_2(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    with tenant.raw(device) as raw:
        raw.send(publish_packet(TELEMETRY, b'{"q0": 1}', qos=0), publish_packet(TELEMETRY, b'{"q2": 1}', 9, qos=2))
        report.check("QoS 0 has no answer, QoS 2 a PUBACK instead of a PUBREC", PUBACK + b"\x09", raw.packet())
    report.check("both are stored", {"q0": 1, "q2": 1}, tenant.stored(device, "q0", "q2"))


def test_unknown_topics(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    report.check("PUBACK on an unknown topic", 0, client.publish("v1/devices/me/telemetri", '{"lost": 1}'))
    report.check("the session stays", 0, client.publish(TELEMETRY, '{"kept": 1}'))
    tenant.stored(device, "kept")
    keys = tenant.rest.get(f"{tenant.telemetry_path(device)}/keys/timeseries").json()
    report.check("what was published there is dropped", ["kept"], keys)
    client.close()


def test_the_gateways_topics_are_not_acknowledged(tenant: Tenant, report: Report) -> None:
    with tenant.raw(tenant.device()) as raw:
        raw.send(publish_packet("v1/gateway/telemetry", b'{"A": [{"a": 1}]}', 1), publish_packet(TELEMETRY, b"{}", 2))
        report.check("v1/gateway/telemetry of a plain device: no PUBACK", PUBACK + b"\x02", raw.packet())


def test_a_ping_is_answered(tenant: Tenant, report: Report) -> None:
    with tenant.raw(tenant.device()) as raw:
        report.check("PINGRESP", b"\xd0\x00", raw.send(packet(0xC0, b"")).packet())
