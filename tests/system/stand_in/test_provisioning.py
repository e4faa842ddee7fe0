"""Self-provisioning over a real socket, with every answer ThingsBoard may give."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from teg.simulator.thingsboard.faults import next_n
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.stand_in_client import (
    ATTRIBUTES,
    TELEMETRY,
    PahoDevice,
    RawSocket,
    connect_packet,
    logged_in,
    publish_packet,
    subscribe_packet,
)

REQUEST, RESPONSE = "/provision/request", "/provision/response"
NOT_FOUND = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
FAILURE = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(limits=ServerLimits(provisioned_session_s=0.2)) as server:
        server.provisioning.allow("key", "secret")
        yield server


def body(name: str | None = "pi-07", key: str = "key", secret: str = "secret", **more: Any) -> dict[str, Any]:
    named = {} if name is None else {"deviceName": name}
    return {**named, "provisionDeviceKey": key, "provisionDeviceSecret": secret, **more}


def provision(server: ThingsBoard, request: dict[str, Any]) -> Any:
    client = PahoDevice("provision").opened(server.host, server.port)
    client.subscribe(RESPONSE)
    client.publish(REQUEST, json.dumps(request))
    (answer,) = client.wait_message(RESPONSE)
    client.close()
    return json.loads(answer)


def test_new_device_gets_a_token_and_may_log_in(server: ThingsBoard) -> None:
    answer = provision(server, body())
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    assert len(answer["credentialsValue"]) == 20
    device = server.wait_for_device("pi-07")
    client = PahoDevice(answer["credentialsValue"]).opened(server.host, server.port)
    client.publish(TELEMETRY, '{"ts": 5, "values": {"a": 1}}')
    client.close()
    assert device.telemetry() == {("a", 5): 1}


def test_device_may_bring_its_own_token_or_basic_credentials(server: ThingsBoard) -> None:
    own = provision(server, body(credentialsType="ACCESS_TOKEN", token="my-own"))
    assert own["credentialsValue"] == "my-own"
    basic = provision(server, body("b", credentialsType="MQTT_BASIC", clientId="c", username="u", password="p"))
    assert basic == {
        "credentialsValue": {"clientId": "c", "userName": "u", "password": "p"},
        "credentialsType": "MQTT_BASIC",
        "status": "SUCCESS",
    }
    PahoDevice("my-own").opened(server.host, server.port).close()
    PahoDevice("u", "p", "c").opened(server.host, server.port).close()


@pytest.mark.parametrize(
    ("request_body", "answer"),
    [
        (body(key="other"), NOT_FOUND),
        (body(secret="other"), NOT_FOUND),
        (body("taken"), FAILURE),
        (body("  "), FAILURE),
    ],
)
def test_refusals(server: ThingsBoard, request_body: dict[str, Any], answer: dict[str, str]) -> None:
    server.add_device("taken")
    assert provision(server, request_body) == answer
    assert len(server.provisioning.requests) == 1


def test_disabled_key_and_any_failure(server: ThingsBoard) -> None:
    server.provisioning.fail = next_n(1)
    assert provision(server, body()) == FAILURE
    server.provisioning.disable("key")
    assert provision(server, body()) == NOT_FOUND


def test_device_without_a_name_gets_one(server: ThingsBoard) -> None:
    assert provision(server, body(None))["status"] == "SUCCESS"
    (device,) = server.devices
    assert len(device.name) == 20


def test_deleted_device_may_provision_again(server: ThingsBoard) -> None:
    provision(server, body())
    assert provision(server, body()) == FAILURE
    server.delete_device("pi-07")
    assert provision(server, body())["status"] == "SUCCESS"


def test_only_pre_provisioned_names_work_and_keep_their_credentials(server: ThingsBoard) -> None:
    server.provisioning.allow("key", "secret", strategy="check")
    assert provision(server, body()) == FAILURE
    server.provisioning.enter("pi-07")
    first = provision(server, body())
    assert first["status"] == "SUCCESS"
    assert provision(server, body()) == first


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"no json",
        b'{"provisionDeviceKey": "key"}',
        b'{"provisionDeviceSecret": "secret"}',
        json.dumps(body(credentialsType="LWM2M")).encode(),
    ],
)
def test_bad_request_closes_without_an_answer(server: ThingsBoard, payload: bytes) -> None:
    with logged_in(server.host, server.port, "provision") as raw:
        assert raw.send(publish_packet(REQUEST, payload)).rest() == b""
    assert server.devices == []


def test_client_id_provision_is_enough_and_other_topics_close(server: ThingsBoard) -> None:
    raw = RawSocket(server.host, server.port).send(connect_packet(None, client_id="provision"))
    assert raw.packet() == b"\x20\x02\x00\x00"
    assert raw.send(publish_packet(TELEMETRY, b"{}")).rest() == b""
    raw.socket.close()


def test_other_subscriptions_are_refused(server: ThingsBoard) -> None:
    client = PahoDevice("provision").opened(server.host, server.port)
    assert client.subscribe(RESPONSE, ATTRIBUTES, "#") == [1, 0x80, 0x80]
    client.close()


def test_answer_without_subscription_then_the_session_is_closed(server: ThingsBoard) -> None:
    client = PahoDevice("provision").opened(server.host, server.port)
    client.publish(REQUEST, json.dumps(body()))
    client.wait_message(RESPONSE)
    client.wait_closed()
    client.close()


def test_swallowed_answer_still_made_the_device(server: ThingsBoard) -> None:
    server.provisioning.swallow_answer = next_n(1)
    client = PahoDevice("provision").opened(server.host, server.port)
    client.publish(REQUEST, json.dumps(body()))
    server.wait_for_device("pi-07")
    client.wait_closed()
    assert client.messages == []
    client.close()
    assert provision(server, body()) == FAILURE


def test_closed_instead_of_answered(server: ThingsBoard) -> None:
    server.provisioning.close_instead = next_n(1)
    with logged_in(server.host, server.port, "provision") as raw:
        assert raw.send(publish_packet(REQUEST, json.dumps(body()).encode())).rest() == b""
    assert provision(server, body())["status"] == "SUCCESS"


def test_made_up_answer(server: ThingsBoard) -> None:
    server.provisioning.answer_with = b'{"status":"SUCCESS","credentialsType":"ACCESS_TOKEN","credentialsValue":""}'
    assert provision(server, body())["credentialsValue"] == ""
    assert server.devices == []


def test_answer_before_the_suback(server: ThingsBoard) -> None:
    server.faults.suback_delay_s = 0.05
    with logged_in(server.host, server.port, "provision") as raw:
        raw.send(subscribe_packet(1, (RESPONSE, 1)), publish_packet(REQUEST, json.dumps(body()).encode(), mid=2))
        assert raw.packet() == b"\x40\x02\x00\x02"
        assert RESPONSE.encode() in raw.packet()
        assert raw.packet() == b"\x90\x03\x00\x01\x01"


def test_provisioning_during_a_delayed_login(server: ThingsBoard) -> None:
    server.faults.connack_delay_s = 0.05
    assert provision(server, body())["status"] == "SUCCESS"
