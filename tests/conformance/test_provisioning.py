"""Devices that register themselves."""

import json
import uuid
from typing import Any

import pytest

from tests.support.conformance import Tenant, unique_name
from tests.support.conformance_report import Report
from tests.support.stand_in_client import TELEMETRY, PahoDevice, connect_packet, publish_packet, subscribe_packet

REQUEST, RESPONSE = "/provision/request", "/provision/response"
CREATE, CHECK = "ALLOW_CREATE_NEW_DEVICES", "CHECK_PRE_PROVISIONED_DEVICES"
FAILURE = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}
NOT_FOUND = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
#: How long the server keeps a session that has its answer.
SESSION_S = 60


def ask(tenant: Tenant, key: str, secret: str, **fields: Any) -> dict[str, Any]:
    client = tenant.target.paho("provision")
    answer = answered(client, {"provisionDeviceKey": key, "provisionDeviceSecret": secret, **fields})
    client.close()
    return answer


def answered(client: PahoDevice, body: dict[str, Any]) -> dict[str, Any]:
    client.publish(REQUEST, json.dumps(body))
    answer: dict[str, Any] = json.loads(client.wait_message(RESPONSE)[-1])
    return answer


def login(tenant: Tenant, connect: bytes) -> int:
    with tenant.target.raw().send(connect) as raw:
        return raw.packet()[3]


def test_a_new_device_once(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key(CREATE)
    name = unique_name()
    answer = ask(tenant, key, secret, deviceName=name)
    tenant.adopt(name)
    kinds = {field: answer.get(field) for field in ("status", "credentialsType")}
    report.check("a new name", {"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN"}, kinds)
    client = tenant.target.paho(answer["credentialsValue"])
    report.check("the token is good", 0, client.publish(TELEMETRY, "{}"))
    client.close()
    report.check("the same name again", FAILURE, ask(tenant, key, secret, deviceName=name))


def test_own_credentials(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key(CREATE)
    name, token = unique_name(), uuid.uuid4().hex[:20]
    answer = ask(tenant, key, secret, deviceName=name, credentialsType="ACCESS_TOKEN", token=token)
    tenant.adopt(name)
    report.check("a token of its own", token, answer.get("credentialsValue"))
    name, user = unique_name(), f"user-{token}"
    basic = {"credentialsType": "MQTT_BASIC", "clientId": f"id-{token}", "username": user, "password": "p"}
    answer = ask(tenant, key, secret, deviceName=name, **basic)
    tenant.adopt(name)
    value = {"clientId": f"id-{token}", "userName": user, "password": "p"}
    report.check("the kind", "MQTT_BASIC", answer.get("credentialsType"))
    report.check("basic credentials of its own", value, answer.get("credentialsValue"))
    good, wrong = (connect_packet(user, client_id=f"id-{token}", password=password) for password in ("p", "q"))
    report.check("CONNACK with them, and with a wrong password", [0, 5], [login(tenant, good), login(tenant, wrong)])


def test_the_client_id_provision_will_do(tenant: Tenant, report: Report) -> None:
    with tenant.target.raw().send(connect_packet(None, client_id="provision")) as raw:
        report.check("CONNACK for the client id provision", 0, raw.packet()[3])


def test_without_a_name(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key(CREATE)
    answer = ask(tenant, key, secret)
    report.check("a random name", "SUCCESS", answer.get("status"))
    listed = tenant.rest.get("/api/tenant/devices", pageSize=1000, page=0).json()["data"]
    [name] = [device["name"] for device in listed if device["deviceProfileId"] == tenant.profile_of(key)]
    tenant.adopt(name)
    report.check("of 20 characters", 20, len(name))


def test_what_is_not_found(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key(CREATE)
    report.check("a wrong secret", NOT_FOUND, ask(tenant, key, "wrong", deviceName=unique_name()))
    report.check("an unknown key", NOT_FOUND, ask(tenant, "wrong", secret, deviceName=unique_name()))


def test_what_fails(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key(CREATE)
    report.check("a name of blanks", FAILURE, ask(tenant, key, secret, deviceName="  "))


def test_devices_that_were_entered_before(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key(CHECK)
    report.check("a name nobody entered", FAILURE, ask(tenant, key, secret, deviceName=unique_name()))
    elsewhere = tenant.device()
    report.check("a device of another profile", FAILURE, ask(tenant, key, secret, deviceName=elsewhere.name))
    entered = tenant.device(deviceProfileId=tenant.profile_of(key))
    answer = ask(tenant, key, secret, deviceName=entered.name)
    report.check("a device of the profile", "SUCCESS", answer.get("status"))
    report.check("it keeps its token", entered.token, answer.get("credentialsValue"))
    report.observe("the same name again", ask(tenant, key, secret, deviceName=entered.name).get("status"))


def test_a_profile_without_provisioning(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key("DISABLED")
    report.check("provisioning disabled", NOT_FOUND, ask(tenant, key, secret, deviceName=unique_name()))


BAD = [
    ("no key and no secret", REQUEST, {"deviceName": "x"}),
    ("an unknown kind of credentials", REQUEST, {"credentialsType": "FINGERPRINT"}),
    ("no JSON", REQUEST, "not json"),
    ("a publish to another topic", TELEMETRY, {"a": 1}),
]


@pytest.mark.parametrize(("what", "topic", "body"), BAD, ids=[what for what, _, _ in BAD])
def test_what_closes(tenant: Tenant, report: Report, what: str, topic: str, body: Any) -> None:
    key, secret = tenant.provisioning_key(CREATE)
    if "credentialsType" in body:
        body = {"deviceName": unique_name(), "provisionDeviceKey": key, "provisionDeviceSecret": secret, **body}
    payload = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    with tenant.target.raw().send(connect_packet("provision")) as raw:
        report.check("CONNACK for the user provision", 0, raw.packet()[3])
        report.check(f"{what}: closed without an answer", b"", raw.send(publish_packet(topic, payload)).rest())


def test_which_filters_are_granted(tenant: Tenant, report: Report) -> None:
    with tenant.target.raw().send(connect_packet("provision")) as raw:
        raw.packet()
        raw.send(subscribe_packet(1, (RESPONSE, 1)), subscribe_packet(2, (TELEMETRY, 1)))
        seen = [raw.packet(), raw.packet()]
    report.check("SUBACK for the response, and for another topic", [1, 0x80], [packet[4] for packet in seen])


def test_the_session_ends_by_itself(tenant: Tenant, report: Report) -> None:
    key, _ = tenant.provisioning_key(CREATE)
    client = tenant.target.paho("provision")
    answered(client, {"deviceName": "x", "provisionDeviceKey": key, "provisionDeviceSecret": "wrong"})
    client.patience_s += SESSION_S
    client.wait_closed()
    report.check("a minute after the answer the session is closed", 1, len(client.disconnects))
    client.close()
