"""Attributes over a real socket: publishing, requesting, pushing, deleting, and their faults."""

import json
from typing import Any

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import next_n
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.stand_in_client import (
    ATTRIBUTES,
    RESPONSES,
    TELEMETRY,
    PahoDevice,
    logged_in,
    publish_packet,
)

REQUEST = "v1/devices/me/attributes/request/"
RESPONSE = "v1/devices/me/attributes/response/"


def ask(client: PahoDevice, number: int, body: Any, prefix: str = REQUEST, reply: str = RESPONSE) -> Any:
    client.publish(f"{prefix}{number}", json.dumps(body))
    (answer,) = client.wait_message(f"{reply}{number}")
    return json.loads(answer)


def test_client_attributes_merge_and_null_is_skipped(client: PahoDevice, device: Device) -> None:
    client.publish(ATTRIBUTES, '{"a": 1, "b": "x", "c": {"d": []}}')
    client.publish(ATTRIBUTES, '{"a": "0042", "b": null}')
    assert device.client_attributes == {"a": 42, "b": "x", "c": {"d": []}}


@pytest.mark.parametrize("payload", [b"[]", b'[{"a": 1}]', b"7", b"", b"no json"])
def test_attributes_that_are_no_object_close(server: ThingsBoard, device: Device, payload: bytes) -> None:
    with logged_in(server.host, server.port) as raw:
        assert raw.send(publish_packet(ATTRIBUTES, payload)).rest() == b""


def test_request_answers_what_is_there(client: PahoDevice, device: Device) -> None:
    device.set_shared({"sw_version": "v1.4.0", "FILES": {"cfg": {"path": "/x"}}, "other": 1})
    device.set_client({"FILE_HASHES": {}})
    assert ask(client, 17, {"clientKeys": "FILE_HASHES", "sharedKeys": "sw_version,FILES,none"}) == {
        "client": {"FILE_HASHES": {}},
        "shared": {"sw_version": "v1.4.0", "FILES": {"cfg": {"path": "/x"}}},
    }
    assert ask(client, 18, {"sharedKeys": "other"}) == {"shared": {"other": 1}}
    assert ask(client, 19, {"sharedKeys": "none", "clientKeys": "none"}) == {}
    assert ask(client, 20, {"sharedKeys": "sw_version, other"}) == {"shared": {"sw_version": "v1.4.0"}}
    everything = ask(client, 21, {})
    assert set(everything["shared"]) == {"sw_version", "FILES", "other"}
    assert set(everything["client"]) == {"FILE_HASHES"}
    assert [number for number, _ in device.attribute_requests] == [17, 18, 19, 20, 21]


def test_response_needs_no_subscription_and_is_qos_1_then(client: PahoDevice) -> None:
    assert ask(client, 1, {}) == {}
    assert client.messages[0][2] == 1


def test_response_has_the_qos_of_its_subscription(client: PahoDevice) -> None:
    client.subscribe(RESPONSES, qos=0)
    ask(client, 1, {})
    assert client.messages[0][2] == 0


@pytest.mark.parametrize(
    "payload",
    [b"[]", b"", b'"sw_version"', b'{"sharedKeys": ["a", "b"]}', b'{"sharedKeys": null}', b'{"clientKeys": {}}'],
)
def test_bad_request_closes(server: ThingsBoard, device: Device, payload: bytes) -> None:
    with logged_in(server.host, server.port) as raw:
        assert raw.send(publish_packet(REQUEST + "1", payload)).rest() == b""


def test_array_of_one_name_is_tolerated(client: PahoDevice, device: Device) -> None:
    device.set_shared({"a": 1})
    assert ask(client, 1, {"sharedKeys": ["a"]}) == {"shared": {"a": 1}}


def test_negative_request_id_is_acknowledged_and_never_answered(client: PahoDevice) -> None:
    client.publish(REQUEST + "-1", "{}")
    assert ask(client, 2, {}) == {}
    assert len(client.messages) == 1


@pytest.mark.parametrize(("prefix", "reply"), [("v2/a/req/", "v2/a/res/"), ("v2/a/req/j/", "v2/a/res/j/")])
def test_answer_comes_in_the_spelling_of_the_request(
    client: PahoDevice, device: Device, prefix: str, reply: str
) -> None:
    device.set_shared({"a": 1})
    assert ask(client, 5, {"sharedKeys": "a"}, prefix, reply) == {"shared": {"a": 1}}


def test_push_of_what_was_written_while_subscribed(client: PahoDevice, device: Device) -> None:
    device.set_shared({"before": 1})
    client.subscribe(ATTRIBUTES)
    device.set_shared({"FILES": {"cfg": {"path": "/x"}}, "limit": 12})
    device.set_shared({"limit": "42"})
    device.delete_shared(["FILES", "never_there"])
    pushes = [json.loads(payload) for payload in client.wait_message(ATTRIBUTES, 3)]
    assert pushes == [
        {"FILES": {"cfg": {"path": "/x"}}, "limit": 12},
        {"limit": 42},
        {"deleted": ["FILES", "never_there"]},
    ]
    assert device.shared_attributes == {"before": 1, "limit": 42}


def test_nothing_is_pushed_without_a_subscription_or_at_subscribe_time(client: PahoDevice, device: Device) -> None:
    device.set_shared({"a": 1})
    client.subscribe(ATTRIBUTES)
    client.publish(TELEMETRY, "{}")
    assert client.messages == []


def test_push_uses_the_spelling_of_the_last_subscription(client: PahoDevice, device: Device) -> None:
    client.subscribe(ATTRIBUTES)
    client.subscribe("v2/a/j", qos=0)
    device.set_shared({"a": 1})
    client.wait_message("v2/a/j")
    assert client.messages == [("v2/a/j", b'{"a":1}', 0)]


def test_operator_values_are_type_cast(device: Device) -> None:
    device.set_shared({"a": "007", "b": "1.10", "c": "v1", "d": True, "e": 0.1 + 0.2, "f": None})
    assert device.shared_attributes == {"a": 7, "b": 1.1, "c": "v1", "d": True, "e": "0.30000000000000004"}


def test_pushed_text_that_was_never_stored(client: PahoDevice, device: Device) -> None:
    client.subscribe(ATTRIBUTES)
    device.push({"deleted": "a user attribute of that name"})
    assert client.wait_message(ATTRIBUTES) == [b'{"deleted":"a user attribute of that name"}']
    assert device.shared_attributes == {}


@pytest.mark.parametrize("body", [{"sharedKeys": ""}, {"clientKeys": "", "sharedKeys": "a"}])
def test_an_empty_name_is_acknowledged_and_never_answered(
    client: PahoDevice, device: Device, body: dict[str, str]
) -> None:
    device.set_shared({"a": 1})
    client.publish(REQUEST + "1", json.dumps(body))
    assert ask(client, 2, {"sharedKeys": "a"}) == {"shared": {"a": 1}}
    assert [topic for topic, _, _ in client.messages] == [RESPONSE + "2"]


def test_swallowed_responses(server: ThingsBoard, client: PahoDevice) -> None:
    server.faults.swallow_attribute_responses = next_n(1)
    client.publish(REQUEST + "1", "{}")
    assert ask(client, 2, {}) == {}
    assert client.on_topic(RESPONSE + "1") == []


def test_stale_response_arrives_after_the_newer_push(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    client.subscribe(ATTRIBUTES, RESPONSES)
    device.set_shared({"v": 1})
    server.faults.stale_attribute_response = next_n(1)
    client.publish(REQUEST + "1", '{"sharedKeys": "v"}')
    device.set_shared({"v": 2})
    client.wait_message(RESPONSE)
    assert [payload for _, payload, _ in client.messages] == [b'{"v":1}', b'{"v":2}', b'{"shared":{"v":1}}']


def test_response_to_a_request_of_the_previous_connection(server: ThingsBoard, device: Device) -> None:
    server.faults.stale_attribute_response = next_n(1)
    first = PahoDevice("T1").opened(server.host, server.port)
    first.publish(REQUEST + "7", "{}")
    first.close()
    second = PahoDevice("T1").opened(server.host, server.port)
    device.release_attribute_responses()
    assert second.wait_message(RESPONSE + "7") == [b"{}"]
    second.close()


def test_swapped_downlinks(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    client.subscribe(ATTRIBUTES)
    server.faults.reorder_downlinks = next_n(1)
    for number in (1, 2, 3):
        device.set_shared({"n": number})
    assert client.wait_message(ATTRIBUTES, 3) == [b'{"n":2}', b'{"n":1}', b'{"n":3}']


def test_swapped_downlink_without_a_successor_leaves_at_last(
    server: ThingsBoard, client: PahoDevice, device: Device
) -> None:
    client.subscribe(ATTRIBUTES)
    server.faults.collect_s = 0.05
    server.faults.reorder_downlinks = next_n(1)
    device.set_shared({"n": 1})
    assert client.wait_message(ATTRIBUTES) == [b'{"n":1}']


def test_lost_subscription_is_granted_but_nothing_comes(
    server: ThingsBoard, client: PahoDevice, device: Device
) -> None:
    server.faults.lose_subscription = next_n(1)
    assert client.subscribe(ATTRIBUTES) == [1]
    device.set_shared({"n": 1})
    assert ask(client, 1, {"sharedKeys": "n"}) == {"shared": {"n": 1}}
    assert client.on_topic(ATTRIBUTES) == [b'{"shared":{"n":1}}']


def test_refused_subscription(server: ThingsBoard, client: PahoDevice) -> None:
    server.faults.refuse_subscription = next_n(1)
    assert client.subscribe(ATTRIBUTES) == [0x80]
    assert client.subscribe(ATTRIBUTES) == [1]
