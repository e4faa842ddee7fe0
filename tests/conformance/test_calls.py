"""Calls from the server to a device."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.conformance import Made, Tenant, eventually
from tests.support.conformance_report import Report
from tests.support.stand_in_client import RPC, PahoDevice, subscribe_packet

REQUEST = "v1/devices/me/rpc/request/"


def subscribed(tenant: Tenant, device: Made, answer: bytes | None) -> PahoDevice:
    client = tenant.client(device)
    client.answer = lambda _topic, _payload: answer
    client.subscribe(RPC)
    return client


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [(b'{"a":1}', 200, '{"a":1}'), (b"[1]", 200, "[1]"), (b"17", 200, "17"), (b"", 200, ""), (b"plain", 406, "")],
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


def test_params_that_nobody_gave(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = subscribed(tenant, device, b"{}")
    for number, (body, seen) in enumerate(
        (({"method": "m"}, None), ({"method": "m", "params": "text"}, "text"), ({"method": "m", "params": [1]}, [1]))
    ):
        tenant.rest.post(f"/api/rpc/twoway/{device.id}", body)
        request = json.loads(client.wait_message(REQUEST, number + 1)[number])
        report.check(f"the request for {body}", {"method": "m", "params": seen}, request)
    client.close()


def test_ids_count_from_0(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = subscribed(tenant, device, b"{}")
    for _ in range(3):
        tenant.rest.post(f"/api/rpc/twoway/{device.id}", {"method": "m", "params": {}})
    report.check("the topics of three calls", [f"{REQUEST}{n}" for n in range(3)], [t for t, _, _ in client.messages])
    client.close()


def test_a_one_way_call(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = subscribed(tenant, device, b'{"nobody": "waits"}')
    got = tenant.rest.post(f"/api/rpc/oneway/{device.id}", {"method": "m", "params": {}})
    report.check("body of a one-way call", "", got.text)
    client.wait_message(REQUEST)
    report.check("an answer to it is acknowledged", 0, client.publish("v1/devices/me/rpc/response/0", "{}"))
    report.check("closes", [], client.disconnects)
    client.close()


def test_a_late_answer_is_dropped(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = subscribed(tenant, device, None)
    tenant.rest.post(f"/api/rpc/twoway/{device.id}", {"method": "m", "params": {}, "timeout": 5000}, status=504)
    report.check("PUBACK for it", 0, client.publish("v1/devices/me/rpc/response/0", '{"late": 1}'))
    report.check("closes", [], client.disconnects)
    client.close()


def test_the_qos_of_a_call_is_that_of_the_subscription(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    for qos in (0, 1):
        client = tenant.client(device)
        client.subscribe(RPC, qos=qos)
        tenant.rest.post(f"/api/rpc/oneway/{device.id}", {"method": "m", "params": {}})
        client.wait_message(REQUEST)
        report.check(f"QoS of the request, subscribed with {qos}", qos, client.messages[0][2])
        client.close()


class Persistent:
    """A call that outlives its caller."""

    def __init__(self, tenant: Tenant, device: Made, way: str = "twoway", **fields: Any) -> None:
        self._rest = tenant.rest
        body = {"method": "m", "params": {}, "persistent": True, "timeout": 60_000, **fields}
        said = tenant.rest.post(f"/api/rpc/{way}/{device.id}", body).json()
        self.keys = sorted(said)
        self.path = f"/api/rpc/persistent/{said['rpcId']}"

    def wait(self, wanted: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            call: dict[str, Any] = self._rest.get(self.path).json()
            return call if call["status"] == wanted else None

        return eventually(found, wanted)


def test_a_persistent_call_goes_through_its_states(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    call = Persistent(tenant, device)
    report.check("the caller gets an id at once", ["rpcId"], call.keys)
    report.check("before anybody is connected", "QUEUED", call.wait("QUEUED")["status"])
    client = subscribed(tenant, device, None)
    client.wait_message(REQUEST)
    report.check("after the PUBACK of the request", "DELIVERED", call.wait("DELIVERED")["status"])
    number = client.messages[0][0].rpartition("/")[2]
    client.publish(f"v1/devices/me/rpc/response/{number}", '{"done": true}')
    report.check("the answer is kept", {"done": True}, call.wait("SUCCESSFUL")["response"])
    client.close()
    tenant.rest.delete(call.path)
    tenant.rest.get(call.path, status=404)


def test_a_persistent_one_way_call_ends_with_its_delivery(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    call = Persistent(tenant, device, "oneway")
    client = subscribed(tenant, device, None)
    report.check("delivered", None, call.wait("DELIVERED")["response"])
    client.subscribe(RPC)
    client.publish("v1/devices/me/attributes/request/1", "{}")
    client.wait_message("v1/devices/me/attributes/response/1")
    report.check("it is not repeated to the next subscription", 1, len(client.on_topic(REQUEST)))
    client.close()


def test_a_persistent_answer_that_is_no_json(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    call = Persistent(tenant, device)
    client = subscribed(tenant, device, b"plain")
    report.check("it is kept as an error, and successful", {"error": "plain"}, call.wait("SUCCESSFUL")["response"])
    client.close()


def test_a_persistent_call_expires(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    call = Persistent(tenant, device, expirationTime=int(time.time() * 1000) + 2000)
    report.check("nobody came", "EXPIRED", call.wait("EXPIRED")["status"])


def test_a_persistent_call_that_is_not_acknowledged(tenant: Tenant, report: Report) -> None:
    """The server waits 10 s for the PUBACK, and sends it anew to the next subscription."""
    device = tenant.device()
    call = Persistent(tenant, device, retries=1)
    with tenant.raw(device) as silent:
        silent.send(subscribe_packet(1, (RPC, 1)))
        report.check("no PUBACK for it", "TIMEOUT", call.wait("TIMEOUT")["status"])
    client = subscribed(tenant, device, b'{"second": true}')
    report.check("sent again to the next subscription", {"second": True}, call.wait("SUCCESSFUL")["response"])
    client.close()


def test_persistent_calls_are_listed_by_state(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    call = Persistent(tenant, device)
    path = f"/api/rpc/persistent/device/{device.id}"
    seen = [
        len(tenant.rest.get(path, pageSize=10, page=0, rpcStatus=state).json()["data"])
        for state in ("QUEUED", "EXPIRED")
    ]
    report.check("calls that are QUEUED, EXPIRED", [1, 0], seen)
    tenant.rest.delete(call.path)
