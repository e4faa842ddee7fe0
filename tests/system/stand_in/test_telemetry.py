"""Telemetry over a real socket: what is acknowledged, what is stored, and what ends the session."""

import json

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.stand_in_client import (
    TELEMETRY,
    PahoDevice,
    RawSocket,
    connect_packet,
    logged_in,
    publish_packet,
)

PUBACK_1 = b"\x40\x02\x00\x01"
PROBE = publish_packet(TELEMETRY, b"{}", mid=99)
PUBACK_99 = b"\x40\x02\x00\x63"


def test_all_three_forms_are_stored(client: PahoDevice, device: Device) -> None:
    client.publish(TELEMETRY, '{"ts": 5, "values": {"a": 1.5}}')
    client.publish(TELEMETRY, '[{"ts": 6, "values": {"a": 2, "b": "x"}}, {"ts": 7, "values": {"a": true}}]')
    client.publish(TELEMETRY, '{"plain": 1}')
    stored = device.telemetry()
    assert {point: value for point, value in stored.items() if point[0] != "plain"} == {
        ("a", 5): 1.5,
        ("a", 6): 2,
        ("b", 6): "x",
        ("a", 7): True,
    }
    assert device.latest("plain") == 1
    assert device.records()[:2] == [(5, {"a": 1.5}), (6, {"a": 2, "b": "x"})]
    assert len(device.payloads) == 3


def test_ts_and_values_must_both_be_there_to_mean_a_timestamp(client: PahoDevice, device: Device) -> None:
    client.publish(TELEMETRY, '{"ts": 1, "temp": 2}')
    assert device.latest_values() == {"ts": 1, "temp": 2}


def test_resent_point_is_one_point_and_another_value_is_a_conflict(client: PahoDevice, device: Device) -> None:
    for value in (1, 1, 2):
        client.publish(TELEMETRY, json.dumps({"ts": 5, "values": {"a": value}}))
    assert device.telemetry() == {("a", 5): 2}
    assert device.duplicates == 1
    assert device.conflicts == [("a", 5)]


def test_latest_value_never_goes_back_in_time(client: PahoDevice, device: Device) -> None:
    for ts in (5, 9, 7):
        client.publish(TELEMETRY, json.dumps({"ts": ts, "values": {"a": ts}}))
    assert device.latest("a") == 9


def test_empty_object_is_acknowledged_and_stores_nothing(client: PahoDevice, device: Device) -> None:
    client.publish(TELEMETRY, "{}")
    assert device.telemetry() == {}


def test_empty_array_is_never_acknowledged_and_the_session_goes_on(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        raw.send(publish_packet(TELEMETRY, b"[]"), PROBE)
        assert raw.packet() == PUBACK_99
    assert [publish.acked for publish in device.publishes] == [False, True]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"17",
        b'"text"',
        b"not json at all",
        b'{"a": 1} trailing',
        b'{"a": 1,}',
        b'[{"a": 1},]',
        b"[1]",
        b'[{"a": 1}, null]',
        b'{"ts": null, "values": {}}',
        b'{"ts": "noon", "values": {}}',
        b'{"ts": true, "values": {}}',
        b'{"ts": 1, "values": []}',
        b'{"ts": 1, "values": null}',
        b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)
@pytest.mark.parametrize("qos", [0, 1])
def test_bad_payload_closes_without_a_packet(server: ThingsBoard, device: Device, payload: bytes, qos: int) -> None:
    with logged_in(server.host, server.port) as raw:
        raw.send(publish_packet(TELEMETRY, payload, qos=qos), PROBE)
        assert raw.rest() == b""
    assert device.telemetry() == {}
    device.wait_disconnected()
    assert device.sessions[0].close_reason.startswith("bad ")


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b'{"ts": 5, "values": {"a": NaN}}', "NaN"),
        (b'{"ts": 5, "values": {"a": -Infinity}}', "-Infinity"),
        (b"{ts: 5, values: {a: 'single'}}", "single"),
        (b'{"ts"=5; "values"=>{"a": 1}} // comment', 1),
        (b'{"ts": "5", "values": {"a": 1}}', 1),
        (b'{"ts": 5.9, "values": {"a": 1}}', 1),
        (b'{"ts": 5, "values": {"a": "\xff"}}', "�"),
        (b'{"ts": 5, "values": {"a": 1, "a": 2}}', 2),
        (b'{"ts": 5, "values": {"a": 0.30000000000000004}}', "0.30000000000000004"),
        (b'{"ts": 5, "values": {"a": 1e3}}', 1000),
        (b'{"ts": 5, "values": {"a": "0123"}}', 123),
        (b'{"ts": 5, "values": {"a": {"b": [1, 2]}}}', {"b": [1, 2]}),
        (b'{"ts": 5, "metadata": {}, "values": {"a": 7}, "x": 1}', 7),
    ],
)
def test_lenient_payload_is_taken(server: ThingsBoard, device: Device, payload: bytes, value: object) -> None:
    with logged_in(server.host, server.port) as raw:
        assert raw.send(publish_packet(TELEMETRY, payload)).packet() == PUBACK_1
    assert device.telemetry() == {("a", 5): value}


def test_a_packet_of_exactly_the_limit_is_taken_and_one_byte_more_closes(server: ThingsBoard, device: Device) -> None:
    room = 65_536 - len(TELEMETRY) - 4 - len('{"a":""}')
    with logged_in(server.host, server.port) as raw:
        payload = b'{"a":"' + b"x" * room + b'"}'
        assert raw.send(publish_packet(TELEMETRY, payload)).packet() == PUBACK_1
        raw.send(publish_packet(TELEMETRY, b'{"a":"' + b"x" * (room + 1) + b'"}'))
        assert raw.rest() == b""
    assert len(device.latest("a")) == room


def test_bad_element_spoils_the_whole_array(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        raw.send(publish_packet(TELEMETRY, b'[{"ts": 5, "values": {"a": 1}}, 7]'))
        assert raw.rest() == b""
    assert device.telemetry() == {}


def test_qos_2_is_stored_and_answered_by_puback(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        raw.send(publish_packet(TELEMETRY, b'{"ts": 5, "values": {"a": 1}}', qos=2))
        assert raw.packet() == PUBACK_1
    assert device.telemetry() == {("a", 5): 1}
    with pytest.raises(AssertionError, match="QoS 1"):
        device.assert_qos1_only()


def test_qos_0_is_stored_and_not_answered(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        raw.send(publish_packet(TELEMETRY, b'{"ts": 5, "values": {"a": 1}}', qos=0), PROBE)
        assert raw.packet() == PUBACK_99
    assert device.telemetry() == {("a", 5): 1}


def test_unknown_topic_is_acknowledged_and_dropped(client: PahoDevice, device: Device) -> None:
    client.publish("v1/devices/me/telemetri", '{"a": 1}')
    client.publish("/provision/request", "{}")
    assert device.telemetry() == {}


def test_gateway_topics_are_never_acknowledged(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        raw.send(publish_packet("v1/gateway/telemetry", b'{"A": [{"a": 1}]}'), PROBE)
        assert raw.packet() == PUBACK_99
    assert device.telemetry() == {}


@pytest.mark.parametrize("topic", ["v2/t", "v2/t/j"])
def test_short_topics(client: PahoDevice, device: Device, topic: str) -> None:
    client.publish(topic, '{"ts": 5, "values": {"a": 1}}')
    assert device.telemetry() == {("a", 5): 1}


def test_each_stored_once_names_what_is_wrong(client: PahoDevice, device: Device) -> None:
    client.publish(TELEMETRY, '[{"ts": 5, "values": {"a": 1}}, {"ts": 6, "values": {"a": 2}}]')
    device.assert_each_stored_once({("a", 5): 1, ("a", 6): 2})
    device.assert_each_stored_once([("a", 5), ("a", 6)])
    with pytest.raises(AssertionError, match="1 of 3 points are lost"):
        device.assert_each_stored_once([("a", 5), ("a", 6), ("a", 7)])
    with pytest.raises(AssertionError, match="never expected"):
        device.assert_each_stored_once([("a", 5)])
    with pytest.raises(AssertionError, match="another value"):
        device.assert_each_stored_once({("a", 5): 1, ("a", 6): 3})
    client.publish(TELEMETRY, '{"ts": 5, "values": {"a": 9}}')
    with pytest.raises(AssertionError, match="overwritten"):
        device.assert_each_stored_once([("a", 5), ("a", 6)])


def test_seconds_instead_of_milliseconds_are_found(client: PahoDevice, device: Device) -> None:
    client.publish(TELEMETRY, '{"ts": 1767225600123, "values": {"a": 1}}')
    device.assert_timestamps_within(1767225600000, 1767225601000)
    client.publish(TELEMETRY, '{"ts": 1767225601, "values": {"a": 1}}')
    with pytest.raises(AssertionError, match="1 points outside"):
        device.assert_timestamps_within(1767225600000, 1767225601000)
    assert device.latest("a") == 1


def test_profile_option_acknowledges_what_it_drops() -> None:
    with ThingsBoard(limits=ServerLimits(ack_bad_payloads=True)) as server:
        device = server.add_device("pi-07", token="T1")
        client = PahoDevice("T1").opened(server.host, server.port)
        client.publish(TELEMETRY, "no json")
        client.close()
        assert device.telemetry() == {}


def test_waiting_in_vain_says_for_what(device: Device) -> None:
    with pytest.raises(AssertionError, match="a miracle; <device pi-07: not connected"):
        device.wait_for(lambda _device: False, 0.05, "a miracle")


@pytest.mark.parametrize("depth", ["distinct", "count"])
def test_lighter_stores(depth: str) -> None:
    with ThingsBoard(store=depth) as server:  # type: ignore[arg-type]
        device = server.add_device("pi-07", token="T1")
        client = PahoDevice("T1").opened(server.host, server.port)
        for ts in (5, 5, 6):
            client.publish(TELEMETRY, json.dumps({"ts": ts, "values": {"a": 1}}))
            assert device.distinct == (0 if depth == "count" else len({5, ts}))
        client.close()
        assert device.records_received == 3
        assert device.payloads == []
        assert device.duplicates == (0 if depth == "count" else 1)


def test_bytes_may_come_one_by_one(server: ThingsBoard, device: Device) -> None:
    raw = RawSocket(server.host, server.port)
    for byte in connect_packet() + publish_packet(TELEMETRY, b'{"ts": 5, "values": {"a": 1}}'):
        raw.send(bytes((byte,)))
    assert raw.take(8) == b"\x20\x02\x00\x00" + PUBACK_1
    raw.socket.close()
    assert device.telemetry() == {("a", 5): 1}
