"""Calls in both directions over a real socket."""

import json
from typing import Any

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import next_n
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.stand_in_client import (
    RPC,
    TELEMETRY,
    PahoDevice,
    RawSocket,
    connect_packet,
    logged_in,
    publish_packet,
    subscribe_packet,
)

REQUEST = "v1/devices/me/rpc/request/"
RESPONSE = "v1/devices/me/rpc/response/"


def echo(_topic: str, payload: bytes) -> bytes:
    return payload


@pytest.mark.parametrize("params", [None, 0, 1.5, "text", True, [], [1, "a"], {}, {"n": {"deep": [1]}}])
def test_two_way_call_with_params_of_every_type(client: PahoDevice, device: Device, params: Any) -> None:
    client.answer = echo
    client.subscribe(RPC)
    outcome = device.rpc("ping", params)
    assert outcome.status == 200
    assert outcome.response == {"method": "ping", "params": params}


def test_ids_count_from_zero_and_start_again_with_the_server(server: ThingsBoard, device: Device) -> None:
    for _ in range(2):
        client = PahoDevice("T1")
        client.answer = echo
        client.opened(server.host, server.port).subscribe(RPC)
        for _ in range(3):
            device.rpc("ping")
        assert [topic.removeprefix(REQUEST) for topic, _, _ in client.messages] == ["0", "1", "2"]
        server.restart()
        client.close()


def test_request_has_exactly_two_fields_and_the_qos_of_the_subscription(client: PahoDevice, device: Device) -> None:
    client.subscribe(RPC, qos=0)
    call = device.rpc_async("ping", timeout_s=30)
    client.wait_message(REQUEST)
    assert client.messages == [(REQUEST + "0", b'{"method":"ping","params":null}', 0)]
    client.publish(RESPONSE + "0", "{}")
    assert call.wait().status == 200


def test_huge_params(client: PahoDevice, device: Device) -> None:
    client.subscribe(RPC)
    call = device.rpc_async("swallow", "x" * 1_000_000)
    (request,) = client.wait_message(REQUEST)
    assert len(json.loads(request)["params"]) == 1_000_000
    client.publish(RESPONSE + "0", '"done"')
    assert call.wait().response == "done"


def test_answer_that_is_no_json(client: PahoDevice, device: Device) -> None:
    client.answer = lambda _topic, _payload: b"not json"
    client.subscribe(RPC)
    assert device.rpc("ping").status == 406


@pytest.mark.parametrize(("old_api", "status"), [(False, 504), (True, 408)])
def test_timeout_of_a_connected_device_and_the_late_answer(
    client: PahoDevice, device: Device, old_api: bool, status: int
) -> None:
    client.subscribe(RPC)
    assert device.rpc("ping", timeout_s=0.1, old_api=old_api).status == status
    client.publish(RESPONSE + "0", "{}")
    assert device.stale_rpc_responses == [(0, b"{}")]


@pytest.mark.parametrize(("old_api", "status"), [(False, 504), (True, 409)])
def test_timeout_of_an_absent_device(device: Device, old_api: bool, status: int) -> None:
    assert device.rpc("ping", timeout_s=0.1, old_api=old_api).status == status


def test_call_waits_for_the_device_to_come(server: ThingsBoard, device: Device) -> None:
    call = device.rpc_async("ping", timeout_s=30)
    client = PahoDevice("T1")
    client.answer = echo
    client.opened(server.host, server.port).subscribe(RPC)
    assert call.wait().status == 200
    client.close()


def test_one_way_call_returns_when_sent_even_if_nobody_reads(client: PahoDevice, device: Device) -> None:
    client.subscribe(RPC)
    assert device.rpc("blink", one_way=True).status == 200
    client.wait_message(REQUEST)
    client.publish(RESPONSE + "0", "{}")
    assert device.stale_rpc_responses == [(0, b"{}")]


def test_one_way_call_to_an_absent_device_waits_then_leaves_on_subscribe(server: ThingsBoard, device: Device) -> None:
    assert device.rpc("blink", one_way=True, timeout_s=0.1).status == 504
    call = device.rpc_async("blink", one_way=True, timeout_s=30)
    assert not call.done
    client = PahoDevice("T1").opened(server.host, server.port)
    client.subscribe(RPC)
    assert call.wait().status == 200
    client.subscribe(RPC)
    assert call.deliveries == 1
    client.close()


def test_every_subscribe_sends_all_pending_calls_again_with_the_same_ids(
    server: ThingsBoard, client: PahoDevice, device: Device
) -> None:
    client.subscribe(RPC)
    calls = [device.rpc_async(name, timeout_s=30) for name in ("a", "b")]
    client.wait_message(REQUEST, 2)
    client.subscribe(RPC)
    assert client.wait_message(REQUEST, 4)[2:] == client.on_topic(REQUEST)[:2]
    client.publish(RESPONSE + "0", "{}")
    again = PahoDevice("T1").opened(server.host, server.port)
    again.subscribe(RPC)
    again.wait_message(REQUEST)
    assert [topic for topic, _, _ in again.messages] == [REQUEST + "1"]
    again.publish(RESPONSE + "1", "{}")
    assert [call.wait().status for call in calls] == [200, 200]
    assert [call.deliveries for call in calls] == [2, 3]
    again.close()


def test_pending_call_may_arrive_before_the_suback(server: ThingsBoard, device: Device) -> None:
    device.rpc_async("early", timeout_s=30)
    server.faults.rpc_before_suback = True
    with logged_in(server.host, server.port) as raw:
        raw.send(subscribe_packet(9, (RPC, 1)))
        assert raw.packet()[0] == 0x32
        assert raw.packet() == b"\x90\x03\x00\x09\x01"


def test_duplicated_request_in_one_session(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    server.faults.duplicate_rpc = next_n(1)
    client.subscribe(RPC)
    call = device.rpc_async("reboot", timeout_s=30)
    first, second = client.wait_message(REQUEST, 2)
    assert first == second
    client.publish(RESPONSE + "0", "{}")
    assert call.wait().status == 200


def test_persistent_call_goes_through_its_states(client: PahoDevice, device: Device) -> None:
    client.answer = echo
    call = device.rpc_async("ping", persistent=True, timeout_s=30)
    assert call.state == "QUEUED"
    client.subscribe(RPC)
    assert call.wait().response == {"method": "ping", "params": None}
    assert call.states[:2] == ["QUEUED", "SENT"]
    assert call.state == "SUCCESSFUL"


def test_persistent_one_way_call_ends_delivered(client: PahoDevice, device: Device) -> None:
    client.subscribe(RPC)
    call = device.rpc_async("blink", persistent=True, one_way=True, timeout_s=30)
    call.wait()
    assert call.states == ["QUEUED", "SENT", "DELIVERED"]


def test_an_empty_answer_is_an_empty_body_and_no_error(client: PahoDevice, device: Device) -> None:
    client.answer = lambda _topic, _payload: b""
    client.subscribe(RPC)
    outcome = device.rpc("ping")
    assert (outcome.status, outcome.response) == (200, None)


def test_persistent_answer_that_is_no_json_is_successful(client: PahoDevice, device: Device) -> None:
    client.answer = lambda _topic, _payload: b"plain"
    client.subscribe(RPC)
    call = device.rpc_async("ping", persistent=True, timeout_s=30)
    assert call.wait().response == {"error": "plain"}
    assert call.state == "SUCCESSFUL"


def test_persistent_call_expires(device: Device) -> None:
    call = device.rpc_async("ping", persistent=True, timeout_s=0.1)
    call.wait()
    assert call.states == ["QUEUED", "EXPIRED"]


def test_persistent_call_deleted_by_the_operator(device: Device) -> None:
    call = device.rpc_async("ping", persistent=True, timeout_s=30)
    device.delete_rpc(call)
    call.wait()
    assert call.state == "DELETED"


def test_only_queued_persistent_calls_survive_a_restart_with_new_ids(
    server: ThingsBoard, client: PahoDevice, device: Device
) -> None:
    client.subscribe(RPC)
    sent = device.rpc_async("sent", persistent=True, timeout_s=30)
    client.wait_message(REQUEST)
    client.close()
    device.wait_disconnected()
    waiting = device.rpc_async("waiting", timeout_s=30)
    queued = device.rpc_async("queued", persistent=True, timeout_s=30)
    assert queued.id == 2
    server.restart()
    assert waiting.wait().status == 0
    assert (sent.state, queued.state) in {("SENT", "QUEUED"), ("DELIVERED", "QUEUED")}
    again = PahoDevice("T1")
    again.answer = echo
    again.opened(server.host, server.port).subscribe(RPC)
    queued.wait()
    assert [topic for topic, _, _ in again.messages] == [REQUEST + "0"]
    again.close()


def silent_subscriber(server: ThingsBoard) -> RawSocket:
    """Subscribed to RPC at QoS 1, but it never sends a PUBACK."""
    raw = RawSocket(server.host, server.port)
    raw.send(connect_packet(), subscribe_packet(1, (RPC, 1)))
    assert raw.take(9) == b"\x20\x02\x00\x00" + b"\x90\x03\x00\x01\x01"
    return raw


def test_without_puback_a_persistent_call_times_out_and_finally_fails() -> None:
    with ThingsBoard(limits=ServerLimits(rpc_delivery_timeout_s=0.05)) as server:
        device = server.add_device("pi-07", token="T1")
        raw = silent_subscriber(server)
        call = device.rpc_async("ping", persistent=True, timeout_s=30, retries=1)
        device.wait_for(lambda _: call.state == "TIMEOUT", 5)
        raw.send(subscribe_packet(2, (RPC, 1)))
        device.wait_for(lambda _: call.state == "FAILED", 5)
        assert call.states == ["QUEUED", "SENT", "TIMEOUT", "SENT", "TIMEOUT", "FAILED"]
        assert call.deliveries == 2
        raw.socket.close()


def test_puback_within_the_window_counts_as_delivered(server: ThingsBoard, device: Device) -> None:
    raw = silent_subscriber(server)
    call = device.rpc_async("ping", persistent=True, timeout_s=30)
    request = raw.packet()
    assert request[0] == 0x32
    mid = request[4 + len(REQUEST + "0") : 6 + len(REQUEST + "0")]
    assert mid == b"\x00\x01"
    raw.send(b"\x40\x02" + mid)
    device.wait_for(lambda _: call.state == "DELIVERED", 5)
    raw.socket.close()


def test_client_rpc_get_session_limits() -> None:
    with ThingsBoard(limits=ServerLimits(rate_limits="200:1")) as server:
        server.add_device("pi-07", token="T1")
        client = PahoDevice("T1").opened(server.host, server.port)
        client.publish(REQUEST + "5", '{"method": "getSessionLimits", "params": {}}')
        (answer,) = client.wait_message(RESPONSE + "5")
        assert json.loads(answer) == {
            "maxPayloadSize": 65_536,
            "maxInflightMessages": 100,
            "rateLimits": {"messages": "200:1", "telemetryMessages": "200:1", "telemetryDataPoints": None},
        }
        client.close()


def test_client_rpc_times_out_unless_something_answers() -> None:
    with ThingsBoard(limits=ServerLimits(client_rpc_timeout_s=0.05)) as server:
        device = server.add_device("pi-07", token="T1")
        client = PahoDevice("T1").opened(server.host, server.port)
        client.publish(REQUEST + "1", '{"method": "getTime"}')
        assert client.wait_message(RESPONSE + "1") == [b'{"error":"timeout"}']
        device.answer_client_rpc(lambda method, params: {method: params})
        client.publish(REQUEST + "2", '{"method": "getTime", "params": [1]}')
        assert client.wait_message(RESPONSE + "2") == [b'{"getTime":[1]}']
        assert device.client_rpcs == [(1, "getTime", None), (2, "getTime", [1])]
        client.close()


@pytest.mark.parametrize("payload", [b"{}", b"[]", b'{"params": 1}', b'{"method": null}', b"x"])
def test_client_rpc_without_method_closes(server: ThingsBoard, device: Device, payload: bytes) -> None:
    with logged_in(server.host, server.port) as raw:
        assert raw.send(publish_packet(REQUEST + "1", payload)).rest() == b""


def test_subscriber_never_receives_its_own_client_rpc(client: PahoDevice, device: Device) -> None:
    client.subscribe(RPC)
    client.publish(REQUEST + "1", '{"method": "getTime"}')
    client.publish(TELEMETRY, "{}")
    assert client.messages == []


def test_claims(client: PahoDevice, device: Device) -> None:
    client.publish("v1/devices/me/claim", "")
    client.publish("v1/devices/me/claim", '{"secretKey": "s3", "durationMs": 60000}')
    assert device.claims == [b"", b'{"secretKey": "s3", "durationMs": 60000}']
    assert client.messages == []
