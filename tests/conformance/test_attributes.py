"""Client and shared attributes: publishing, asking, being told."""

import json
from typing import Any

from tests.support.conformance import Made, Report, Tenant, eventually
from tests.support.stand_in_client import ATTRIBUTES, RESPONSES, PahoDevice

REQUEST = "v1/devices/me/attributes/request/"
RESPONSE = "v1/devices/me/attributes/response/"


def ask(client: PahoDevice, number: int, body: Any) -> Any:
    client.publish(f"{REQUEST}{number}", json.dumps(body))
    return json.loads(client.wait_message(f"{RESPONSE}{number}")[-1])


def share(tenant: Tenant, device: Made, values: dict[str, Any]) -> None:
    tenant.rest.post(f"{tenant.telemetry_path(device)}/SHARED_SCOPE", values)


def test_client_attributes_are_typed_and_merged(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.publish(ATTRIBUTES, '{"a": 1, "b": "x", "c": {"d": []}}')
    client.publish(ATTRIBUTES, '{"a": "0042", "n": null}')
    client.close()
    path = f"{tenant.telemetry_path(device)}/values/attributes/CLIENT_SCOPE"

    def found() -> dict[str, Any] | None:
        values = {item["key"]: item["value"] for item in tenant.rest.get(path).json()}
        return values if values.get("a") == 42 and "b" in values else None

    report.check("client attributes", {"a": 42, "b": "x", "c": {"d": []}}, eventually(found, "client attributes"))


def test_requests(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    share(tenant, device, {"s": "v1.4.0", "F": {"cfg": {"path": "/x"}}, "o": 1})
    client = tenant.client(device)
    both = {"shared": {"s": "v1.4.0", "F": {"cfg": {"path": "/x"}}}}
    report.check("keys by name, one missing", both, ask(client, 1, {"sharedKeys": "s,F,none"}))
    report.check("nothing found", {}, ask(client, 2, {"clientKeys": "none", "sharedKeys": "none"}))
    everything = ask(client, 3, {})
    report.check("{} asks for everything", ["F", "o", "s"], sorted(everything["shared"]))
    client.close()


def test_an_empty_name_is_never_answered(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    share(tenant, device, {"s": 1})
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
    share(tenant, device, {"F": {"a": 1}, "limit": 12})
    report.check("a change is pushed flat", {"F": {"a": 1}, "limit": 12}, pushes(client, 1)[0])
    tenant.rest.delete(f"{tenant.telemetry_path(device)}/SHARED_SCOPE", keys="F,never_there")
    deleted = pushes(client, 2)[1]["deleted"]
    report.check("a deletion names the keys asked for", ["F", "never_there"], sorted(deleted))
    client.close()
