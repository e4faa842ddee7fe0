"""Calls from the server to a device."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.conformance import Made, Report, Tenant, eventually
from tests.support.stand_in_client import RPC, PahoDevice

REQUEST = "v1/devices/me/rpc/request/"


def subscribed(tenant: Tenant, device: Made, answer: bytes | None) -> PahoDevice:
    client = tenant.client(device)
    client.answer = lambda _topic, _payload: answer
    client.subscribe(RPC)
    return client


@pytest.mark.parametrize(
    ("answer", "status", "text"), [(b'{"a":1}', 200, '{"a":1}'), (b"", 200, ""), (b"plain", 406, "")]
)
def test_what_the_caller_gets(tenant: Tenant, report: Report, answer: bytes, status: int, text: str) -> None:
    device = tenant.device()
    client = subscribed(tenant, device, answer)
    got = tenant.rest.post(f"/api/rpc/twoway/{device.id}", {"method": "m", "params": {"n": 1}}, status=status)
    report.check(f"body for the answer {answer!r}", text, got.text)
    requests = [(topic, json.loads(payload)) for topic, payload, _ in client.messages]
    report.check("the request", [(REQUEST + "0", {"method": "m", "params": {"n": 1}})], requests)
    client.close()


def test_nobody_there(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    got = tenant.rest.post(f"/api/rpc/twoway/{device.id}", {"method": "m", "timeout": 5000}, status=504)
    report.check("body of a 504", "", got.text)


def test_every_subscription_repeats_what_is_pending(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = subscribed(tenant, device, None)
    with ThreadPoolExecutor(1) as other:
        body = {"method": "slow", "params": None, "timeout": 20_000}
        waiting = other.submit(tenant.rest.post, f"/api/rpc/twoway/{device.id}", body)
        client.wait_message(REQUEST)
        client.subscribe(RPC)
        client.wait_message(REQUEST, 2)
        report.check("the ids of both deliveries", [REQUEST + "0"] * 2, [topic for topic, _, _ in client.messages])
        client.publish("v1/devices/me/rpc/response/0", '{"late": true}')
        report.check("the caller's answer", {"late": True}, waiting.result(30).json())
    client.close()


def test_a_persistent_call_goes_through_its_states(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    body = {"method": "m", "params": {}, "persistent": True, "timeout": 60_000}
    rpc_id = tenant.rest.post(f"/api/rpc/twoway/{device.id}", body).json()["rpcId"]
    path = f"/api/rpc/persistent/{rpc_id}"

    def state(wanted: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            call: dict[str, Any] = tenant.rest.get(path).json()
            return call if call["status"] == wanted else None

        call: dict[str, Any] = eventually(found, wanted)
        return call

    report.check("before anybody is connected", "QUEUED", state("QUEUED")["status"])
    client = subscribed(tenant, device, None)
    client.wait_message(REQUEST)
    report.check("after the PUBACK of the request", "DELIVERED", state("DELIVERED")["status"])
    number = client.messages[0][0].rpartition("/")[2]
    client.publish(f"v1/devices/me/rpc/response/{number}", '{"done": true}')
    report.check("the answer is kept", {"done": True}, state("SUCCESSFUL")["response"])
    client.close()
    tenant.rest.delete(path)
