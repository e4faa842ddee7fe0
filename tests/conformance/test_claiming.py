"""A device offers itself, and a customer's user takes it. Of the claim itself the device hears nothing."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.conformance import Made, Tenant, unique_name
from tests.support.conformance_report import Report
from tests.support.conformance_target import PatientRest

CLAIM = "v1/devices/me/claim"


@pytest.fixture
def customer(tenant: Tenant) -> Iterator[PatientRest]:
    """The REST API as a customer's user, who was activated as the mail would tell."""
    identity = tenant.make("/api/customer", {"title": unique_name()})["id"]
    email, password = f"{unique_name()}@example.org", uuid.uuid4().hex
    user = {"email": email, "authority": "CUSTOMER_USER", "customerId": identity}
    made = tenant.make("/api/user", user, params={"sendActivationMail": "false"})
    link = tenant.rest.get(f"/api/user/{made['id']['id']}/activationLink").text
    body = {"activateToken": link.rpartition("=")[2], "password": password}
    tenant.rest.post("/api/noauth/activate", body, params={"sendActivationMail": "false"})
    rest = replace(tenant.target, user=email, password=password).rest()
    yield rest
    rest.close()


def taken(customer: PatientRest, device: Made, status: int, secret: str | None = None) -> Any:
    """What the user is told: of a success the body, of a failure one word."""
    body = {} if secret is None else {"secretKey": secret}
    return customer.post(f"/api/customer/device/{device.name}/claim", body, status=status).json()


def offered(tenant: Tenant, device: Made, payload: str) -> list[Any]:
    """The PUBACK, and what came down."""
    client = tenant.client(device)
    code = client.publish(CLAIM, payload)
    client.publish("v1/devices/me/telemetry", "{}")
    seen = [code, client.messages]
    client.close()
    return seen


def test_nothing_was_offered(tenant: Tenant, customer: PatientRest, report: Report) -> None:
    report.check("a device that offers nothing", "FAILURE", taken(customer, tenant.device(), 400))


@pytest.mark.parametrize(("payload", "secret"), [("", None), ('{"secretKey": "s3", "durationMs": 60000}', "s3")])
def test_an_offer_is_taken_once(
    tenant: Tenant, customer: PatientRest, report: Report, payload: str, secret: str | None
) -> None:
    device = tenant.device()
    said = f"{payload or 'an empty payload'}"
    report.check(f"{said}: acknowledged, and no answer", [0, []], offered(tenant, device, payload))
    result = taken(customer, device, 200, secret)
    report.check(f"{said}: taken", "SUCCESS", result["response"])
    owner = tenant.rest.get(f"/api/device/{device.id}").json()["customerId"]
    report.check(f"{said}: its owner", result["device"]["customerId"], owner)
    report.check(f"{said}: taken again", "CLAIMED", taken(customer, device, 400, secret))


def test_a_wrong_secret(tenant: Tenant, customer: PatientRest, report: Report) -> None:
    device = tenant.device()
    offered(tenant, device, json.dumps({"secretKey": "right", "durationMs": 60_000}))
    report.check("a wrong secret", "FAILURE", taken(customer, device, 400, "wrong"))
    offered(tenant, device, json.dumps({"secretKey": "right", "durationMs": 60_000}))
    report.check("offered anew, the right one", "SUCCESS", taken(customer, device, 200, "right")["response"])


def test_an_offer_that_is_over(tenant: Tenant, customer: PatientRest, report: Report) -> None:
    device = tenant.device()
    offered(tenant, device, json.dumps({"secretKey": "s", "durationMs": 1}))
    report.check("after its time", "FAILURE", taken(customer, device, 400, "s"))
