"""Connecting, the one session of a device, and which filters are granted."""

import pytest

from tests.support.conformance import Report, Tenant
from tests.support.stand_in_client import (
    ATTRIBUTES,
    RESPONSES,
    RPC,
    TELEMETRY,
    PahoDevice,
    RawSocket,
    connect_packet,
    packet,
    publish_packet,
)


def raw_client(tenant: Tenant) -> RawSocket:
    return RawSocket(tenant.target.host, tenant.target.port)


def test_login(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    for what, connect, code in (
        ("the token as user name", connect_packet(device.token), 0),
        ("an unknown token", connect_packet("no such token"), 5),
        ("an unknown client id alone", connect_packet(None, client_id="no such client"), 2),
        ("nothing at all", connect_packet(None), 5),
    ):
        raw = raw_client(tenant).send(connect)
        report.check(f"CONNACK for {what}", code, raw.packet()[3])
        raw.socket.close()


@pytest.mark.parametrize("level", [2, 6])
def test_an_unknown_protocol_level_closes_without_a_connack(tenant: Tenant, report: Report, level: int) -> None:
    raw = raw_client(tenant).send(connect_packet(tenant.device().token, level=level))
    report.check(f"protocol level {level}", b"", raw.rest())
    raw.socket.close()


def test_a_second_connect_is_accepted_once_more(tenant: Tenant, report: Report) -> None:
    connect = connect_packet(tenant.device().token)
    raw = raw_client(tenant).send(connect)
    assert raw.packet() == b"\x20\x02\x00\x00"
    report.check("CONNACK for a second CONNECT", b"\x20\x02\x00\x00", raw.send(connect).packet())
    report.check("PUBACK afterwards", b"\x40\x02\x00\x01", raw.send(publish_packet(TELEMETRY, b"{}")).packet())
    raw.socket.close()


def test_the_newer_session_of_a_device_wins(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    older = raw_client(tenant).send(connect_packet(device.token, client_id="one"))
    assert older.packet() == b"\x20\x02\x00\x00"
    newer = tenant.client(device)
    report.check("the older session ends without a packet", b"", older.rest())
    report.check("the newer one goes on", 0, newer.publish(TELEMETRY, "{}"))
    older.socket.close()
    newer.close()


FILTERS = {
    RPC: 1,
    ATTRIBUTES: 1,
    RESPONSES: 1,
    "v1/devices/me/rpc/response/+": 1,
    "v2/fw/response/+/chunk/+": 1,
    "v2/sw/response/+/chunk/+": 1,
    "v1/gateway/attributes": 1,
    "v1/gateway/rpc": 1,
    "v2/fw/response/+": 0x80,
    "v1/devices/me/#": 0x80,
    "#": 0x80,
    "v1/devices/me/attributes/response/1": 0x80,
    "v1/devices/me/telemetry": 0x80,
}


def test_granted_filters(tenant: Tenant, report: Report) -> None:
    client = tenant.client(tenant.device())
    codes = client.subscribe(*FILTERS)
    client.close()
    for (name, expected), code in zip(FILTERS.items(), codes, strict=True):
        report.check(f"SUBACK for {name}", expected, code)


def test_session_present_is_a_lie(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    target = tenant.target
    client = PahoDevice(device.token, client_id="c", clean=False).opened(target.host, target.port)
    report.check("session present without a clean session", True, client.connacks[0][1])
    client.close()


def test_what_is_too_large_closes(tenant: Tenant, report: Report) -> None:
    raw = raw_client(tenant).send(connect_packet(tenant.device().token))
    assert raw.packet() == b"\x20\x02\x00\x00"
    payload = b'{"a": "' + b"x" * 65_536 + b'"}'
    report.check("more than 65,536 bytes", b"", raw.send(publish_packet(TELEMETRY, payload)).rest())
    raw.socket.close()


def test_unknown_topics(tenant: Tenant, report: Report) -> None:
    client = tenant.client(tenant.device())
    report.check("PUBACK on an unknown topic", 0, client.publish("v1/devices/me/telemetri", "{}"))
    client.close()
    raw = raw_client(tenant).send(connect_packet(tenant.device().token))
    assert raw.packet() == b"\x20\x02\x00\x00"
    raw.send(publish_packet("v1/gateway/telemetry", b'{"A": [{"a": 1}]}', 1), publish_packet(TELEMETRY, b"{}", 2))
    report.check("v1/gateway/telemetry of a plain device: no PUBACK", b"\x40\x02\x00\x02", raw.packet())
    raw.socket.close()


def test_a_ping_is_answered(tenant: Tenant, report: Report) -> None:
    raw = raw_client(tenant).send(connect_packet(tenant.device().token), packet(0xC0, b""))
    assert raw.packet() == b"\x20\x02\x00\x00"
    report.check("PINGRESP", b"\xd0\x00", raw.packet())
    raw.socket.close()
