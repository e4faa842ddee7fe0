"""Which type a value has once it is stored, and which payloads are taken at all."""

import json
from typing import Any

import pytest

from tests.support.conformance import Tenant, eventually
from tests.support.conformance_report import Report
from tests.support.stand_in_client import TELEMETRY, publish_packet

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
    ("0.12345678901234567", "0.12345678901234567"),
    ("1e-17", "0.00000000000000001"),
    ("2.2204460492503131e-16", "0.00000000000000022204460492503131"),
    ("9223372036854775807", 9223372036854775807),
    ("9223372036854775808", "9223372036854775808"),
    ("-9223372036854775809", "-9223372036854775809"),
    ("12345678901234567890", "12345678901234567890"),
    ("1e400", "1" + "0" * 400),
    ("8.1e21", "81" + "0" * 20),
    ("12345678901234567168.0", "12345678901234567000"),
    ("1.2e20", "120000000000000000000"),
    ('"0123"', 123),
    ('"1.50"', 1.5),
    ('".5"', 0.5),
    ('"-7"', -7),
    ('"1.10"', 1.1),
    ('"1e5"', "1e5"),
    ('"+5"', "+5"),
    ('"5."', "5."),
    ('" 5"', " 5"),
    ('"0x1F"', "0x1F"),
    ('"dry"', "dry"),
    ('""', ""),
    ("NaN", "NaN"),
    ("Infinity", "Infinity"),
    ("-Infinity", "-Infinity"),
    ("[1, [2]]", [1, [2]]),
    ("false", False),
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


def test_what_the_operator_writes_is_typed_too(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    tenant.share(device, {"a": "42", "b": "007", "c": "1.4.0", "d": [1], "e": "true"})
    client = tenant.client(device)
    client.publish("v1/devices/me/attributes/request/1", '{"sharedKeys": "a,b,c,d,e"}')
    seen = json.loads(client.wait_message("v1/devices/me/attributes/response/1")[0])["shared"]
    client.close()
    report.check("shared attributes written as text", {"a": 42, "b": 7, "c": "1.4.0", "d": [1], "e": "true"}, seen)


#: Payload -> what is stored at which time stamp.
TIMES: list[tuple[str, str, int]] = [
    ("milliseconds", '{"ts": 1767225600123, "values": {"z": 1}}', 1767225600123),
    ("ts as a number with a fraction", '{"ts": 1767225600123.9, "values": {"z": 1}}', 1767225600123),
    ("ts as text", '{"ts": "1767225600123", "values": {"z": 1}}', 1767225600123),
    ("seconds are 1970", '{"ts": 1767225600, "values": {"z": 1}}', 1767225600),
    ("the future", '{"ts": 4102444800000, "values": {"z": 1}}', 4102444800000),
    ("other keys beside ts and values are ignored", '{"ts": 5000, "values": {"z": 1}, "x": 2}', 5000),
]


def test_time_stamps(tenant: Tenant, report: Report) -> None:
    for what, payload, ts_ms in TIMES:
        device = tenant.device()
        client = tenant.client(device)
        client.publish(TELEMETRY, payload)
        client.close()
        tenant.stored(device, "z")
        report.check(f"{what}: stored there", [1], tenant.series(device, "z", ts_ms, ts_ms + 1))
        keys = tenant.rest.get(f"{tenant.telemetry_path(device)}/keys/timeseries").json()
        report.check(f"{what}: keys", ["z"], keys)


def test_ts_without_values_is_a_value(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.publish(TELEMETRY, '{"ts": 1, "temp": 2}')
    client.close()
    report.check("ts without values", {"ts": 1, "temp": 2}, tenant.stored(device, "ts", "temp"))


def test_the_same_point_again_overwrites(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    for value in (1, 1, 2):
        client.publish(TELEMETRY, f'{{"ts": 1767225600123, "values": {{"a": {value}}}}}')
    client.publish(TELEMETRY, '{"end": 1}')
    client.close()
    tenant.stored(device, "end")

    def last() -> list[Any] | None:
        found = tenant.series(device, "a", 1767225600000, 1767225601000)
        return found if found == [2] else None

    report.check("one point of the same key and time, the last", [2], eventually(last, "the last value"))


ACCEPTED = [
    ("{}", "nothing to store"),
    ('{"a": null, "z": 1}', "null is skipped"),
    ('{"ts": [1767225600123], "values": {"z": 1}}', "ts as a list of one number"),
    ('{"ts": "1767225600123", "values": {"z": 1}}', "ts as text"),
    ("{'z': 1}", "single quotes"),
    ("{z: 1}", "keys without quotes"),
    ('{"a"=2; "z"=1}', "other separators"),
    ('/* no */ {"z": 1} // none', "comments"),
    ('{"z": 2, "z": 1}', "the last of two equal keys"),
    ('[{"a": 1}, {"ts": 1767225600123, "values": {"z": 1}}]', "both forms in one array"),
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


REFUSED = ["", "17", '"text"', "true", "not json at all", '{"a": 1,}', '{"a": 1} x', "[1]", '[{"a": 1}, 2]']
REFUSED += ['{"ts": "noon", "values": {}}', '{"ts": null, "values": {}}', '{"ts": 1, "values": []}', '{"a": ']


@pytest.mark.parametrize("payload", REFUSED)
def test_a_bad_payload_closes_without_a_packet(tenant: Tenant, report: Report, payload: str) -> None:
    device = tenant.device()
    with tenant.raw(device) as raw:
        seen = raw.send(publish_packet(TELEMETRY, payload.encode())).rest()
    report.check(f"{payload!r} as telemetry closes the socket without a packet", b"", seen)


def test_an_empty_array_is_never_acknowledged(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    with tenant.raw(device) as raw:
        raw.send(publish_packet(TELEMETRY, b"[]", 1), publish_packet(TELEMETRY, b"{}", 2))
        report.check("the PUBACK after [] and {} is that of {}", b"\x40\x02\x00\x02", raw.packet())


def test_mixed_forms_and_the_latest_value(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.publish(TELEMETRY, '{"ts": 1767225600200, "values": {"a": 2}}')
    older = [{"ts": 1767225600100, "values": {"a": 1}}, {"b": 5}]
    client.publish(TELEMETRY, json.dumps(older))
    client.close()
    report.check("an older value does not become the latest", {"a": 2, "b": 5}, tenant.stored(device, "a", "b"))
