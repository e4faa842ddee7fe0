"""Which type a value has once it is stored, and which payloads are taken at all."""

import json
from typing import Any

import pytest

from tests.support.conformance import Report, Tenant
from tests.support.stand_in_client import TELEMETRY, RawSocket, connect_packet, publish_packet

TYPING: list[tuple[str, Any]] = [
    ("true", True),
    ('"true"', "true"),
    ("5", 5),
    ("1e3", 1000),
    ("1.0", 1.0),
    ("0.1", 0.1),
    ("1.5e-5", 1.5e-5),
    ("9999999.0", 9999999.0),
    ("10000000.0", 10_000_000),
    ("12345678.5", 12345678.5),
    ("0.30000000000000004", "0.30000000000000004"),
    ("9223372036854775807", 9223372036854775807),
    ("9223372036854775808", "9223372036854775808"),
    ("12345678901234567168.0", "12345678901234567000"),
    ("1.2e20", "120000000000000000000"),
    ('"0123"', 123),
    ('"1.50"', 1.5),
    ('"1e5"', "1e5"),
    ('"+5"', "+5"),
    ('""', ""),
    ("NaN", "NaN"),
    ("Infinity", "Infinity"),
    ('{"b": [1, 2]}', {"b": [1, 2]}),
]


def test_stored_types(tenant: Tenant, report: Report) -> None:
    """All in one message: a value is known by its place."""
    device = tenant.device()
    client = tenant.client(device)
    keys = [f"k{number}" for number in range(len(TYPING))]
    members = ", ".join(f'"{key}": {written}' for key, (written, _) in zip(keys, TYPING, strict=True))
    client.publish(TELEMETRY, f'{{"ts": 1767225600123, "values": {{{members}}}}}')
    client.close()
    seen = tenant.stored(device, *keys)
    for key, (written, expected) in zip(keys, TYPING, strict=True):
        report.check(f"{written} is stored as {type(expected).__name__}", expected, seen[key])


ACCEPTED = [
    ("{}", "nothing to store"),
    ('{"a": null, "z": 1}', "null is skipped"),
    ('{"ts": [1767225600123], "values": {"z": 1}}', "ts as a list of one number"),
    ('{"ts": "1767225600123", "values": {"z": 1}}', "ts as text"),
    ("{'z': 1}", "single quotes"),
    ('{"a": ' + "[" * 300 + "]" * 300 + ', "z": 1}', "300 levels"),
]


@pytest.mark.parametrize(("payload", "what"), ACCEPTED, ids=[what for _, what in ACCEPTED])
def test_accepted(tenant: Tenant, report: Report, payload: str, what: str) -> None:
    device = tenant.device()
    client = tenant.client(device)
    code = client.publish(TELEMETRY, payload)
    report.check(f"{what}: acknowledged", 0, code)
    if "z" in payload:
        report.check(f"{what}: stored", 1, tenant.stored(device, "z")["z"])
    client.close()


REFUSED = ["", "17", '"text"', "not json at all", '{"a": 1,}', "[1]", '{"ts": "noon", "values": {}}']


@pytest.mark.parametrize("payload", REFUSED)
def test_a_bad_payload_closes_without_a_packet(tenant: Tenant, report: Report, payload: str) -> None:
    device = tenant.device()
    raw = RawSocket(tenant.target.host, tenant.target.port).send(connect_packet(device.token))
    assert raw.packet() == b"\x20\x02\x00\x00"
    seen = raw.send(publish_packet(TELEMETRY, payload.encode())).rest()
    raw.socket.close()
    report.check(f"{payload!r} as telemetry closes the socket without a packet", b"", seen)


def test_an_empty_array_is_never_acknowledged(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    raw = RawSocket(tenant.target.host, tenant.target.port).send(connect_packet(device.token))
    assert raw.packet() == b"\x20\x02\x00\x00"
    raw.send(publish_packet(TELEMETRY, b"[]", 1), publish_packet(TELEMETRY, b"{}", 2))
    report.check("the PUBACK after [] and {} is that of {}", b"\x40\x02\x00\x02", raw.packet())
    raw.socket.close()


def test_mixed_forms_and_the_latest_value(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.publish(TELEMETRY, '{"ts": 1767225600200, "values": {"a": 2}}')
    older = [{"ts": 1767225600100, "values": {"a": 1}}, {"b": 5}]
    client.publish(TELEMETRY, json.dumps(older))
    client.close()
    report.check("an older value does not become the latest", {"a": 2, "b": 5}, tenant.stored(device, "a", "b"))
