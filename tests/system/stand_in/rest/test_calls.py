"""Calls to a device over the REST API, and the states of persistent ones."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.rest import Rest
from tests.support.stand_in_client import RPC, PahoDevice


@pytest.fixture
def subscribed(client: PahoDevice) -> PahoDevice:
    client.subscribe(RPC)
    return client


@pytest.mark.parametrize("prefix", ["/api/rpc", "/api/plugins/rpc"])
def test_a_call_is_answered_with_the_device_s_own_json(
    rest: Rest, device: Device, subscribed: PahoDevice, prefix: str
) -> None:
    subscribed.answer = lambda _topic, payload: b'{"got": ' + payload + b', "n": 1.50}'
    answer = rest.post(f"{prefix}/twoway/{device.id}", {"method": "ping", "params": {"n": 1}})
    assert answer.json() == {"got": {"method": "ping", "params": {"n": 1}}, "n": 1.5}
    assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(("payload", "status", "text"), [(b"plain", 406, ""), (b"", 200, ""), (b"null", 200, "null")])
def test_answers_that_are_not_json_or_empty(
    rest: Rest, device: Device, subscribed: PahoDevice, payload: bytes, status: int, text: str
) -> None:
    subscribed.answer = lambda _topic, _payload: payload
    assert rest.post(f"/api/rpc/twoway/{device.id}", {"method": "m"}, status=status).text == text


@pytest.mark.parametrize(("prefix", "status"), [("/api/rpc", 504), ("/api/plugins/rpc", 409)])
def test_nobody_is_connected(rest: Rest, device: Device, prefix: str, status: int) -> None:
    assert rest.post(f"{prefix}/twoway/{device.id}", {"method": "m", "timeout": 50}, status=status).text == ""


def test_the_old_api_has_a_status_of_its_own_for_silence(rest: Rest, device: Device, subscribed: PahoDevice) -> None:
    rest.post(f"/api/plugins/rpc/twoway/{device.id}", {"method": "m", "timeout": 50}, status=408)
    rest.post(f"/api/rpc/twoway/{device.id}", {"method": "m", "timeout": 50}, status=504)


def test_an_expiration_time_overrides_the_timeout(rest: Rest, device: Device) -> None:
    body = {"method": "m", "timeout": 600_000, "expirationTime": int(time.time() * 1000) - 1}
    rest.post(f"/api/rpc/twoway/{device.id}", body, status=504)


def test_one_way_does_not_wait(rest: Rest, device: Device, subscribed: PahoDevice) -> None:
    assert rest.post(f"/api/rpc/oneway/{device.id}", {"method": "go", "params": [1]}).text == ""
    assert subscribed.wait_message("v1/devices/me/rpc/request/") == [b'{"method":"go","params":[1]}']


def test_a_persistent_call_from_queued_to_successful(
    server: ThingsBoard, rest: Rest, device: Device, client: PahoDevice
) -> None:
    client.answer = lambda _topic, _payload: b'{"done": true}'
    body = {"method": "m", "params": {"a": 1}, "persistent": True, "timeout": 60_000, "retries": 2}
    rpc_id = rest.post(f"/api/rpc/twoway/{device.id}", body).json()["rpcId"]
    state = rest.get(f"/api/rpc/persistent/{rpc_id}").json()
    assert (state["status"], state["response"], state["id"]["id"]) == ("QUEUED", None, rpc_id)
    assert state["request"]["body"] == {"method": "m", "params": '{"a":1}'}
    assert (state["request"]["retries"], state["deviceId"]["id"]) == (2, device.id)
    assert 0 < state["expirationTime"] - state["createdTime"] <= 60_000
    client.subscribe(RPC)
    server.wait_for(lambda: rest.get(f"/api/rpc/persistent/{rpc_id}").json()["status"] == "SUCCESSFUL", 10)
    assert rest.get(f"/api/rpc/persistent/{rpc_id}").json()["response"] == {"done": True}


def test_persistent_calls_of_a_device_are_listed_and_deleted(rest: Rest, device: Device) -> None:
    url = f"/api/rpc/twoway/{device.id}"
    ids = [rest.post(url, {"method": f"m{n}", "persistent": True}).json()["rpcId"] for n in range(3)]
    listing = f"/api/rpc/persistent/device/{device.id}"
    page = rest.get(listing, pageSize=2, page=0, rpcStatus="QUEUED").json()
    assert ([item["id"]["id"] for item in page["data"]], page["totalElements"]) == (ids[:2], 3)
    rest.delete(f"/api/rpc/persistent/{ids[0]}")
    assert rest.get(listing, pageSize=9, page=0).json()["totalElements"] == 2
    assert rest.get(listing, pageSize=9, page=0, rpcStatus="SUCCESSFUL").json()["data"] == []
    rest.get(f"/api/rpc/persistent/{ids[0]}", status=404)
    assert len(device.pending_calls) == 2


def test_a_call_under_way_ends_with_the_server(server: ThingsBoard, rest: Rest, device: Device) -> None:
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(rest.post, f"/api/rpc/twoway/{device.id}", {"method": "m", "timeout": 60_000})
        server.wait_for(lambda: device.pending_calls, 10, "the call")
        server.crash()
        with pytest.raises(requests.ConnectionError):
            waiting.result(20)
    rest.get(f"/api/device/{device.id}")


@pytest.mark.parametrize("body", [[], {}, {"params": 1}, {"method": "m", "timeout": "soon"}])
def test_a_body_that_is_no_call(rest: Rest, device: Device, body: object) -> None:
    assert rest.post(f"/api/rpc/twoway/{device.id}", body, status=400).json()["errorCode"] == 31
    assert device.pending_calls == []


def test_an_unknown_device_and_an_unknown_call(rest: Rest) -> None:
    rest.post(f"/api/rpc/twoway/{uuid.uuid4()}", {"method": "m"}, status=404)
    rest.get(f"/api/rpc/persistent/{uuid.uuid4()}", status=404)
    rest.get("/api/rpc/persistent/x", status=400)
