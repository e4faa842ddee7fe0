"""Client and shared attributes: publishing, asking, being told."""

import json
from typing import Any

from tests.support.conformance import Tenant, eventually
from tests.support.conformance_report import Report
from tests.support.stand_in_client import ATTRIBUTES, RESPONSES, PahoDevice, publish_packet

REQUEST = "v1/devices/me/attributes/request/"
RESPONSE = "v1/devices/me/attributes/response/"


def ask(client: PahoDevice, number: int, body: Any) -> Any:
    client.publish(f"{REQUEST}{number}", json.dumps(body))
    return json.loads(client.wait_message(f"{RESPONSE}{number}")[-1])


def test_client_attributes_are_typed_and_merged(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.publish(ATTRIBUTES, '{"a": 1, "b": "x", "c": {"d": []}}')
    eventually(lambda: tenant.attributes(device, "CLIENT_SCOPE").get("a"), "the first of two publishes")
    client.publish(ATTRIBUTES, '{"a": "0042", "n": null}')
    client.close()
    path = f"{tenant.telemetry_path(device)}/values/attributes/CLIENT_SCOPE"

    def found() -> dict[str, Any] | None:
        values = {item["key"]: item["value"] for item in tenant.rest.get(path).json()}
        return values if values.get("a") == 42 and "b" in values else None

    report.check("client attributes", {"a": 42, "b": "x", "c": {"d": []}}, eventually(found, "client attributes"))


def test_requests(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    tenant.share(device, {"s": "v1.4.0", "F": {"cfg": {"path": "/x"}}, "o": 1})
    client = tenant.client(device)
    both = {"shared": {"s": "v1.4.0", "F": {"cfg": {"path": "/x"}}}}
    report.check("keys by name, one missing", both, ask(client, 1, {"sharedKeys": "s,F,none"}))
    report.check("nothing found", {}, ask(client, 2, {"clientKeys": "none", "sharedKeys": "none"}))
    everything = ask(client, 3, {})
    report.check("{} asks for everything", ["F", "o", "s"], sorted(everything["shared"]))
    client.close()


def test_how_names_are_read(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    tenant.share(device, {"s": 1, "t": 2})
    tenant.rest.post(f"{tenant.telemetry_path(device)}/SERVER_SCOPE", {"secret": 1})
    client = tenant.client(device)
    client.publish(ATTRIBUTES, '{"c": 1}')
    stored = lambda: tenant.attributes(device, "CLIENT_SCOPE") or None  # noqa: E731
    eventually(stored, "the client attribute")
    report.check(
        "a blank after the comma is part of the name", {"shared": {"s": 1}}, ask(client, 1, {"sharedKeys": "s, t"})
    )
    report.check("one scope named: only that", {"client": {"c": 1}}, ask(client, 2, {"clientKeys": "c"}))
    everything = {"client": {"c": 1}, "shared": {"s": 1, "t": 2}}
    report.check("{} asks for both scopes, not for the server's", everything, ask(client, 3, {}))
    report.check("the server's scope by name", {}, ask(client, 4, {"clientKeys": "secret", "sharedKeys": "secret"}))
    client.close()


def test_answers_come_without_a_subscription(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    with tenant.raw(device) as raw:
        raw.send(publish_packet(REQUEST + "9", b"{}", 1))
        seen = sorted(raw.packet()[:4] for _ in range(2))
    report.check("PUBACK, and the answer", [b"\x32", b"\x40"], [part[:1] for part in seen])


def test_a_negative_request_is_never_answered(tenant: Tenant, report: Report) -> None:
    client = tenant.client(tenant.device())
    report.check("PUBACK for request -1", 0, client.publish(REQUEST + "-1", "{}"))
    for number in range(2, 5):
        ask(client, number, {})
    report.check("answers to it after three later ones", [], client.on_topic(RESPONSE + "-1"))
    client.close()


def test_an_empty_name_is_never_answered(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    tenant.share(device, {"s": 1})
    client = tenant.client(device)
    client.subscribe(RESPONSES)
    report.check("PUBACK for an empty name", 0, client.publish(REQUEST + "1", '{"sharedKeys": ""}'))
    for number in range(2, 7):
        report.check("a later request", {"shared": {"s": 1}}, ask(client, number, {"sharedKeys": "s"}))
    report.check("answers to the empty name after five later ones", [], client.on_topic(RESPONSE + "1"))
    client.close()


def pushes(client: PahoDevice, count: int) -> list[Any]:
    """The topic of the pushes is how that of the answers begins."""

    def found() -> list[bytes]:
        return [payload for topic, payload, _ in client.messages if topic == ATTRIBUTES]

    client.wait(lambda: len(found()) >= count, f"{count} pushes")
    return [json.loads(payload) for payload in found()]


def test_pushes(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.subscribe(ATTRIBUTES)
    ask(client, 1, {})  # the subscription is registered by now
    tenant.share(device, {"F": {"a": 1}, "limit": 12})
    report.check("a change is pushed flat", {"F": {"a": 1}, "limit": 12}, pushes(client, 1)[0])
    tenant.rest.delete(f"{tenant.telemetry_path(device)}/SHARED_SCOPE", keys="F,never_there")
    deleted = pushes(client, 2)[1]["deleted"]
    report.check("a deletion names the keys asked for", ["F", "never_there"], sorted(deleted))
    client.close()


def test_what_changed_while_nobody_listened_is_not_pushed(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    tenant.share(device, {"before": 1})
    client = tenant.client(device)
    client.subscribe(ATTRIBUTES)
    report.check("the request after the subscription tells it", {"shared": {"before": 1}}, ask(client, 1, {}))
    tenant.share(device, {"later": 2})
    report.check("the first push is a later change", {"later": 2}, pushes(client, 1)[0])
    client.close()
    tenant.share(device, {"offline": 3})
    again = tenant.client(device)
    again.subscribe(ATTRIBUTES)
    ask(again, 1, {})
    tenant.share(device, {"online": 4})
    report.check("the first push of the next session", {"online": 4}, pushes(again, 1)[0])
    again.close()


def test_no_push_without_a_subscription(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.subscribe(RESPONSES)
    tenant.share(device, {"a": 1})
    for number in range(1, 4):
        ask(client, number, {})
    report.check("pushes", [], [topic for topic, _, _ in client.messages if topic == ATTRIBUTES])
    client.subscribe(ATTRIBUTES)
    ask(client, 4, {})
    tenant.share(device, {"a": 2})
    report.check("with a subscription", {"a": 2}, pushes(client, 1)[0])
    client.close()


def test_a_key_that_is_called_deleted(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.subscribe(ATTRIBUTES)
    ask(client, 1, {})
    tenant.share(device, {"deleted": ["a"]})
    report.check("it looks like a deletion", {"deleted": ["a"]}, pushes(client, 1)[0])
    client.close()


def test_the_order_of_pushes(tenant: Tenant, report: Report) -> None:
    """Quick changes may arrive swapped; the last request tells the truth."""
    device = tenant.device()
    client = tenant.client(device)
    client.subscribe(ATTRIBUTES)
    ask(client, 1, {})
    for number in range(20):
        tenant.share(device, {"n": number})
    seen = [push["n"] for push in pushes(client, 20)]
    report.observe("twenty quick changes arrive in order", seen == list(range(20)))
    report.check("each of them is pushed once", list(range(20)), sorted(seen))
    report.check("asked afterwards", {"shared": {"n": 19}}, ask(client, 2, {}))
    client.close()
