"""Devices that register themselves."""

import json
import uuid
from typing import Any

from tests.support.conformance import Report, Tenant
from tests.support.stand_in_client import TELEMETRY, PahoDevice, RawSocket, connect_packet, publish_packet


def provision(tenant: Tenant, name: str, key: str, secret: str) -> dict[str, Any]:
    client = PahoDevice("provision").opened(tenant.target.host, tenant.target.port)
    client.subscribe("/provision/response")
    body = {"deviceName": name, "provisionDeviceKey": key, "provisionDeviceSecret": secret}
    client.publish("/provision/request", json.dumps(body))
    answer: dict[str, Any] = json.loads(client.wait_message("/provision/response")[0])
    client.close()
    return answer


def test_a_new_device_once(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key("ALLOW_CREATE_NEW_DEVICES")
    name = f"conformance-{uuid.uuid4().hex[:12]}"
    answer = provision(tenant, name, key, secret)
    tenant.adopt(name)
    kinds = {field: answer.get(field) for field in ("status", "credentialsType")}
    report.check("a new name", {"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN"}, kinds)
    client = PahoDevice(answer["credentialsValue"]).opened(tenant.target.host, tenant.target.port)
    report.check("the token is good", 0, client.publish(TELEMETRY, "{}"))
    client.close()
    failure = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}
    report.check("the same name again", failure, provision(tenant, name, key, secret))


def test_a_wrong_key_or_secret(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key("ALLOW_CREATE_NEW_DEVICES")
    unknown = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
    report.check("a wrong secret", unknown, provision(tenant, "conformance-x", key, "wrong"))
    report.check("an unknown key", unknown, provision(tenant, "conformance-x", "wrong", secret))


def test_a_name_nobody_entered(tenant: Tenant, report: Report) -> None:
    key, secret = tenant.provisioning_key("CHECK_PRE_PROVISIONED_DEVICES")
    failure = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}
    report.check("a name nobody entered", failure, provision(tenant, "conformance-nobody", key, secret))


def test_a_request_without_its_fields_closes(tenant: Tenant, report: Report) -> None:
    raw = RawSocket(tenant.target.host, tenant.target.port).send(connect_packet("provision"))
    assert raw.packet() == b"\x20\x02\x00\x00"
    said = raw.send(publish_packet("/provision/request", b'{"deviceName": "x"}')).rest()
    report.check("no key and no secret", b"", said)
    raw.socket.close()
