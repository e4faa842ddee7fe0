"""What ends a session: in 3.1.1 always the same, the end of the connection without a packet."""

import json
import uuid

import pytest

from tests.support.conformance import Tenant
from tests.support.conformance_report import Report
from tests.support.stand_in_client import (
    ATTRIBUTES,
    TELEMETRY,
    connect_packet,
    packet,
    publish_packet,
)

REQUEST = "v1/devices/me/attributes/request/"
BAD = [
    ("an attribute request whose id is no number", REQUEST + "x", b"{}"),
    ("an attribute request whose id is beyond 32 bits", REQUEST + "2147483648", b"{}"),
    ("an attribute request that is no object", REQUEST + "1", b"[]"),
    ("an attribute request with a list of names", REQUEST + "1", b'{"sharedKeys": ["a", "b"]}'),
    ("attributes as an array", ATTRIBUTES, b'[{"a": 1}]'),
    ("attributes as a number", ATTRIBUTES, b"17"),
    ("attributes that are no JSON", ATTRIBUTES, b"not json at all"),
    ("an RPC request without a method", "v1/devices/me/rpc/request/1", b'{"params": {}}'),
    ("an RPC request that is no object", "v1/devices/me/rpc/request/1", b'"ping"'),
    ("an RPC request whose id is no number", "v1/devices/me/rpc/request/x", b'{"method": "m", "params": {}}'),
    ("an RPC answer whose id is no number", "v1/devices/me/rpc/response/x", b"{}"),
    ("a claim that is no object", "v1/devices/me/claim", b"[]"),
    ("a chunk size that is no number", "v2/sw/request/1/chunk/0", b"many"),
]


@pytest.mark.parametrize(("what", "topic", "payload"), BAD, ids=[what for what, _, _ in BAD])
def test_bad_content(tenant: Tenant, report: Report, what: str, topic: str, payload: bytes) -> None:
    with tenant.raw(tenant.device()) as raw:
        report.check(f"{what}: closed without a packet", b"", raw.send(publish_packet(topic, payload)).rest())


def test_what_is_too_large(tenant: Tenant, report: Report) -> None:
    payload = b'{"a": "' + b"x" * 65_536 + b'"}'
    with tenant.raw(tenant.device()) as raw:
        report.check("more than 65,536 bytes", b"", raw.rest_after(publish_packet(TELEMETRY, payload)))


def test_just_not_too_large(tenant: Tenant, report: Report) -> None:
    """Topic and packet id count."""
    device = tenant.device()
    payload = b'{"a": "' + b"x" * (65_536 - len(TELEMETRY) - 4 - 9) + b'"}'
    with tenant.raw(device) as raw:
        seen = raw.send(publish_packet(TELEMETRY, payload)).packet()
    report.check("65,536 bytes behind the fixed header are taken", b"\x40\x02\x00\x01", seen)


def test_a_malformed_packet(tenant: Tenant, report: Report) -> None:
    with tenant.raw(tenant.device()) as raw:
        report.check("PUBLISH with QoS 3 closes without a packet", b"", raw.send(packet(0x36, b"\x00\x01ab")).rest())


def test_changed_credentials(tenant: Tenant, report: Report) -> None:
    device, token = tenant.device(), uuid.uuid4().hex[:20]
    with tenant.raw(device) as raw:
        current = tenant.rest.get(f"/api/device/{device.id}/credentials").json()
        tenant.rest.post("/api/device/credentials", {**current, "credentialsId": token})
        report.check("changed credentials end the session without a packet", b"", raw.rest())
    for what, user, code in (("the former token", device.token, 5), ("the new token", token, 0)):
        with tenant.target.raw().send(connect_packet(user)) as raw:
            report.check(f"CONNACK for {what}", code, raw.packet()[3])


def test_a_deleted_device(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    with tenant.raw(device) as raw:
        tenant.rest.delete(f"/api/device/{device.id}")
        report.check("a deleted device's session ends without a packet", b"", raw.rest())
    with tenant.target.raw().send(connect_packet(device.token)) as raw:
        report.check("CONNACK for the token of a deleted device", 5, raw.packet()[3])


def test_a_changed_device_stays(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    body = tenant.rest.get(f"/api/device/{device.id}").json()
    tenant.rest.post("/api/device", {**body, "label": "changed"})
    report.check("a changed label does not end the session", 0, client.publish(TELEMETRY, json.dumps({"a": 1})))
    report.check("closes after it", [], client.disconnects)
    client.close()
