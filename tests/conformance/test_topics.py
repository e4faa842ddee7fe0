"""The other spellings of the topics, requests from the device to the server, and how answers are sent."""

import json
from functools import partial
from typing import Any

from tests.support.conformance import Made, Tenant, eventually
from tests.support.conformance_report import Report
from tests.support.stand_in_client import ATTRIBUTES, RESPONSES, RPC, publish_packet, subscribe_packet

#: Of the server's default configuration.
CLIENT_RPC_TIMEOUT_S = 60


def client_attribute(tenant: Tenant, device: Made) -> Any:
    return tenant.attributes(device, "CLIENT_SCOPE").get("c")


def test_the_short_topics(tenant: Tenant, report: Report) -> None:
    for telemetry, attributes, request, response in (
        ("v2/t", "v2/a", "v2/a/req/", "v2/a/res/"),
        ("v2/t/j", "v2/a/j", "v2/a/req/j/", "v2/a/res/j/"),
    ):
        device = tenant.device()
        tenant.share(device, {"s": 1})
        client = tenant.client(device)
        client.publish(telemetry, '{"t": 1}')
        report.check(f"{telemetry} is telemetry", {"t": 1}, tenant.stored(device, "t"))
        client.publish(attributes, '{"c": 1}')
        eventually(partial(client_attribute, tenant, device), "the client attribute")
        client.publish(request + "3", '{"clientKeys": "c", "sharedKeys": "s"}')
        answer = json.loads(client.wait_message(response + "3")[0])
        report.check(f"{request} is answered on {response}", {"client": {"c": 1}, "shared": {"s": 1}}, answer)
        client.close()


def test_pushes_and_calls_come_as_they_were_subscribed(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.answer = lambda topic, _payload: b"{}" if "/req/" in topic else None
    client.subscribe("v2/a", "v2/r/req/+")
    client.publish("v2/a/req/1", "{}")
    client.wait_message("v2/a/res/1")  # the subscriptions are registered by now
    tenant.share(device, {"s": 1})
    client.wait(lambda: ("v2/a", b'{"s":1}') in told(client), "the push on v2/a")
    report.check("a push on v2/a", {"s": 1}, json.loads(dict(told(client))["v2/a"]))
    tenant.rest.post(f"/api/rpc/oneway/{device.id}", {"method": "m", "params": {}})
    call = json.loads(client.wait_message("v2/r/req/")[0])
    report.check("a call on v2/r/req/", {"method": "m", "params": {}}, call)
    client.close()


def told(client: Any) -> list[tuple[str, bytes]]:
    """Compact, as any server's JSON may have blanks."""
    return [(topic, payload.replace(b" ", b"")) for topic, payload, _ in client.messages]


def test_downlinks_have_the_qos_of_the_subscription(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.publish("v1/devices/me/attributes/request/1", "{}")
    client.wait_message("v1/devices/me/attributes/response/1")
    client.subscribe(RESPONSES, qos=0)
    client.publish("v1/devices/me/attributes/request/2", "{}")
    client.wait_message("v1/devices/me/attributes/response/2")
    report.check(
        "QoS of the answers without a subscription and with one of QoS 0", [1, 0], [m[2] for m in client.messages]
    )
    client.close()


def test_a_downlink_is_sent_once_and_without_retain(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    with tenant.raw(device) as raw:
        raw.send(subscribe_packet(1, (ATTRIBUTES, 1)))
        raw.packet()
        raw.send(publish_packet("v1/devices/me/attributes/request/1", b"{}", 2))
        first = sorted(raw.packet()[0] for _ in range(2))
        report.check("first bytes of PUBACK and answer: QoS 1, no DUP, no retain", [0x32, 0x40], first)
    with tenant.raw(device) as raw:
        raw.send(subscribe_packet(1, (ATTRIBUTES, 1)), publish_packet("v1/devices/me/telemetry", b"{}", 2))
        seen = sorted(raw.packet() for _ in range(2))
        report.check(
            "what was not acknowledged is not sent again", [b"\x40\x02\x00\x02", b"\x90\x03\x00\x01\x01"], seen
        )


def test_a_downlink_may_be_larger_than_an_uplink(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    values = {f"large{number}": "x" * 40_000 for number in range(2)}
    tenant.share(device, values)
    client = tenant.client(device)
    client.publish("v1/devices/me/attributes/request/1", '{"sharedKeys": "large0,large1"}')
    answer = client.wait_message("v1/devices/me/attributes/response/1")[0]
    report.check(
        "an answer of more than 80,000 bytes", True, len(answer) > 80_000 and json.loads(answer)["shared"] == values
    )
    client.close()


def test_the_sessions_limits(tenant: Tenant, report: Report) -> None:
    client = tenant.client(tenant.device())
    client.publish("v1/devices/me/rpc/request/5", '{"method": "getSessionLimits", "params": {}}')
    limits = json.loads(client.wait_message("v1/devices/me/rpc/response/5")[0])
    client.close()
    report.check("the names of the limits", ["maxInflightMessages", "maxPayloadSize", "rateLimits"], sorted(limits))
    names = ["messages", "telemetryDataPoints", "telemetryMessages"]
    report.check("the names of the rate limits", names, sorted(limits["rateLimits"]))
    report.check("the largest payload", 65_536, limits["maxPayloadSize"])
    report.observe("the rate limits of this server", limits["rateLimits"])


def test_a_request_that_no_rule_answers(tenant: Tenant, report: Report) -> None:
    """The rule chain of a new tenant only logs it."""
    client = tenant.client(tenant.device())
    client.patience_s += CLIENT_RPC_TIMEOUT_S
    client.publish("v1/devices/me/rpc/request/6", '{"method": "getTime", "params": {}}')
    answer = json.loads(client.wait_message("v1/devices/me/rpc/response/6")[0])
    report.check("the answer when the server's time for it is over", {"error": "timeout"}, answer)
    client.close()


def test_a_device_does_not_receive_its_own_requests(tenant: Tenant, report: Report) -> None:
    client = tenant.client(tenant.device())
    client.subscribe(RPC)
    client.publish("v1/devices/me/rpc/request/7", '{"method": "getSessionLimits", "params": {}}')
    client.wait_message("v1/devices/me/rpc/response/7")
    report.check("messages on the topic of calls", [], client.on_topic("v1/devices/me/rpc/request/"))
    client.close()
