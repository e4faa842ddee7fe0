"""What our own files in deploy/thingsboard need of a server: a profile's alarms, and a dashboard."""

import json
from pathlib import Path
from typing import Any

from tests.support.conformance import Made, Tenant, eventually, unique_name
from tests.support.conformance_report import Report
from tests.support.stand_in_client import TELEMETRY

FILES = Path(__file__).resolve().parents[2] / "deploy" / "thingsboard"


def ours(name: str, name_field: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((FILES / name).read_text())
    return {**body, name_field: unique_name()}


def alarms(tenant: Tenant, device: Made, status: str) -> list[Any]:
    path = f"/api/alarm/DEVICE/{device.id}"
    found: list[Any] = tenant.rest.get(path, pageSize=10, page=0, searchStatus=status).json()["data"]
    return found


def test_an_alarm_of_our_profile(tenant: Tenant, report: Report) -> None:
    profile = tenant.make("/api/deviceProfile", ours("device-profile.json", "name"))
    device = tenant.device(deviceProfileId=profile["id"])
    client = tenant.client(device)
    client.publish(TELEMETRY, '{"dead_letters": 3}')
    [raised] = eventually(lambda: alarms(tenant, device, "ACTIVE") or None, "the alarm")
    seen = {field: raised[field] for field in ("type", "severity", "status")}
    expected = {"type": "Dead letters", "severity": "WARNING", "status": "ACTIVE_UNACK"}
    report.check("a value over its limit raises it", expected, seen)
    report.check("its details", "3 messages were set aside", raised["details"]["data"])
    client.publish(TELEMETRY, '{"dead_letters": 0}')
    [cleared] = eventually(lambda: alarms(tenant, device, "CLEARED") or None, "its end")
    report.check("a value below it clears it", raised["id"], cleared["id"])
    report.check("nothing is active", [], alarms(tenant, device, "ACTIVE"))
    client.close()


def test_an_alarm_is_cleared_by_a_person(tenant: Tenant, report: Report) -> None:
    profile = tenant.make("/api/deviceProfile", ours("device-profile.json", "name"))
    device = tenant.device(deviceProfileId=profile["id"])
    client = tenant.client(device)
    client.publish(TELEMETRY, '{"sw_state": "FAILED", "sw_error": "no heartbeat"}')
    [raised] = eventually(lambda: alarms(tenant, device, "ACTIVE") or None, "the alarm")
    tenant.rest.post(f"/api/alarm/{raised['id']['id']}/clear")
    report.check(
        "its status then", "CLEARED_UNACK", tenant.rest.get(f"/api/alarm/{raised['id']['id']}").json()["status"]
    )
    client.close()


def test_a_profile_is_kept_as_it_was_sent(tenant: Tenant, report: Report) -> None:
    body = ours("device-profile.json", "name")
    made = tenant.make("/api/deviceProfile", body)
    found = tenant.rest.get(f"/api/deviceProfile/{made['id']['id']}").json()
    types = [alarm["alarmType"] for alarm in body["profileData"]["alarms"]]
    report.check("its alarms", types, [alarm["alarmType"] for alarm in found["profileData"]["alarms"]])
    again = tenant.rest.post("/api/deviceProfile", {**body, "id": found["id"]}, status=None)
    report.observe("a change without a version", again.status_code)


def test_our_dashboard(tenant: Tenant, report: Report) -> None:
    body = ours("dashboard.json", "title")
    made = tenant.make("/api/dashboard", body)
    path = f"/api/dashboard/{made['id']['id']}"
    found = tenant.rest.get(path).json()
    report.check("what it shows", body["configuration"], found.get("configuration"))
    listed = tenant.rest.get("/api/tenant/dashboards", pageSize=10, page=0, textSearch=body["title"]).json()
    report.check("found by its title", [made["id"]], [entry["id"] for entry in listed["data"]])
    tenant.rest.post("/api/dashboard", {**found, "mobileHide": True})
    report.check("changed", True, tenant.rest.get(path).json().get("mobileHide"))
    stale = tenant.rest.post("/api/dashboard", {**found, "mobileHide": False}, status=None)
    report.check("a change of what somebody else has changed", 409, stale.status_code)
    tenant.rest.delete(path)
    report.check("after it was deleted", 404, tenant.rest.get(path, status=None).status_code)
