"""Device profiles with provisioning, and dashboards, over the REST API."""

import json
import uuid
from typing import Any

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.rest import Rest
from tests.support.stand_in_client import PahoDevice

#: An alarm rule as ThingsBoard exports it.
SILENT = {
    "id": "a",
    "alarmType": "silent",
    "createRules": {
        "CRITICAL": {
            "condition": {
                "condition": [
                    {
                        "key": {"type": "TIME_SERIES", "key": "age_s"},
                        "valueType": "NUMERIC",
                        "predicate": {"type": "NUMERIC", "operation": "GREATER", "value": {"defaultValue": 10}},
                    }
                ],
                "spec": {"type": "SIMPLE"},
            }
        }
    },
    "clearRule": None,
}


def profile(provision_type: str = "ALLOW_CREATE_NEW_DEVICES", secret: str = "s", **fields: Any) -> dict[str, Any]:
    configuration = {"type": provision_type, "provisionDeviceSecret": secret}
    data = {"provisionConfiguration": configuration, "alarms": [SILENT]}
    return {"name": "teg", "provisionType": provision_type, "provisionDeviceKey": "k", "profileData": data, **fields}


def provision(server: ThingsBoard, name: str, secret: str = "s") -> dict[str, Any]:
    client = PahoDevice("provision").opened(server.host, server.port)
    request = {"deviceName": name, "provisionDeviceKey": "k", "provisionDeviceSecret": secret}
    client.publish("/provision/request", json.dumps(request))
    (answer,) = client.wait_message("/provision/response")
    client.close()
    found: dict[str, Any] = json.loads(answer)
    return found


def test_a_profile_comes_back_as_it_was_saved(rest: Rest) -> None:
    saved = rest.post("/api/deviceProfile", profile()).json()
    assert rest.get(f"/api/deviceProfile/{saved['id']['id']}").json() == saved
    assert {field: saved[field] for field in profile()} == profile()
    assert (saved["id"]["entityType"], saved["default"], saved["version"]) == ("DEVICE_PROFILE", False, 1)
    again = rest.post("/api/deviceProfile", {**saved, "name": "teg 2"}).json()
    assert (again["id"], again["createdTime"], again["version"]) == (saved["id"], saved["createdTime"], 2)
    names = [item["name"] for item in rest.get("/api/deviceProfiles", pageSize=10, page=0).json()["data"]]
    assert names == ["default", "teg 2"]
    (info,) = rest.get("/api/deviceProfileInfos", pageSize=10, page=0, textSearch="TEG").json()["data"]
    assert (info["name"], "profileData" in info) == ("teg 2", False)


def test_a_profile_lets_devices_provision_themselves(server: ThingsBoard, rest: Rest) -> None:
    saved = rest.post("/api/deviceProfile", profile()).json()
    token = provision(server, "pi-07")["credentialsValue"]
    PahoDevice(token).opened(server.host, server.port).close()
    device = rest.get("/api/tenant/devices", deviceName="pi-07").json()
    assert (device["type"], device["deviceProfileId"]) == ("teg", saved["id"])
    assert provision(server, "pi-07")["status"] == "FAILURE"
    assert provision(server, "pi-08", secret="wrong")["status"] == "NOT_FOUND"


def test_a_changed_profile_forgets_the_old_key_and_secret(server: ThingsBoard, rest: Rest) -> None:
    saved = rest.post("/api/deviceProfile", profile()).json()
    saved = rest.post("/api/deviceProfile", {**saved, **profile(secret="new")}).json()
    assert provision(server, "pi-07")["status"] == "NOT_FOUND"
    assert provision(server, "pi-07", secret="new")["status"] == "SUCCESS"
    saved = rest.post("/api/deviceProfile", {**saved, **profile("DISABLED")}).json()
    assert provision(server, "pi-08")["status"] == "NOT_FOUND"
    saved = rest.post("/api/deviceProfile", {**saved, **profile()}).json()
    rest.post("/api/deviceProfile", {**saved, **profile(provisionDeviceKey="other")})
    assert provision(server, "pi-08")["status"] == "NOT_FOUND"


def test_a_device_of_the_profile_that_was_made_before_keeps_its_credentials(server: ThingsBoard, rest: Rest) -> None:
    saved = rest.post("/api/deviceProfile", profile("CHECK_PRE_PROVISIONED_DEVICES")).json()
    rest.post("/api/device", {"name": "pi-07", "deviceProfileId": saved["id"]}, params={"accessToken": "T7"})
    rest.post("/api/device", {"name": "pi-09"}, params={"accessToken": "T9"})
    assert provision(server, "pi-08")["status"] == "FAILURE"
    assert provision(server, "pi-09")["status"] == "FAILURE", "of another profile"
    assert [provision(server, "pi-07")["credentialsValue"] for _ in range(2)] == ["T7", "T7"]
    PahoDevice("T7").opened(server.host, server.port).close()
    assert len(server.devices) == 2


def test_a_device_of_a_profile(rest: Rest) -> None:
    saved = rest.post("/api/deviceProfile", profile()).json()
    path = f"/api/deviceProfile/{saved['id']['id']}"
    made = rest.post("/api/device", {"name": "pi-07", "deviceProfileId": saved["id"]}).json()
    assert (made["type"], made["deviceProfileId"]) == ("teg", saved["id"])
    assert "referenced by the devices" in rest.delete(path, status=400).json()["message"]
    rest.delete(f"/api/device/{made['id']['id']}")
    rest.delete(path)
    rest.get(path, status=404)
    rest.post("/api/device", {"name": "pi-08", "deviceProfileId": saved["id"]}, status=404)


def test_the_default_profile(rest: Rest) -> None:
    default = rest.get("/api/deviceProfileInfo/default").json()
    made = rest.post("/api/device", {"name": "pi-07"}).json()
    assert (made["type"], made["deviceProfileId"], default["name"]) == ("default", default["id"], "default")
    assert "prohibited" in rest.delete(f"/api/deviceProfile/{default['id']['id']}", status=400).json()["message"]


def test_what_is_wrong_with_a_profile_is_said(rest: Rest) -> None:
    rest.post("/api/deviceProfile", profile())
    assert "already exists" in rest.post("/api/deviceProfile", profile(), status=400).json()["message"]
    assert "should be specified" in rest.post("/api/deviceProfile", {}, status=400).json()["message"]
    rest.post("/api/deviceProfile", profile(id={"id": str(uuid.uuid4())}), status=404)
    rest.post("/api/deviceProfile", profile(id="x"), status=400)
    rest.post("/api/deviceProfile", profile(name="y", softwareId={"id": "z"}), status=501)


def test_dashboards_are_kept_listed_and_deleted(rest: Rest) -> None:
    body = {"title": "Edge gateways", "configuration": {"widgets": {"w": {"type": "timeseries"}}}}
    saved = rest.post("/api/dashboard", body).json()
    path = f"/api/dashboard/{saved['id']['id']}"
    found = rest.get(path).json()
    assert {field: found[field] for field in body} == body
    assert "configuration" not in rest.get(f"/api/dashboard/info/{saved['id']['id']}").json()
    changed = rest.post("/api/dashboard", {**saved, "title": "Gateways"}).json()
    assert (changed["id"], changed["version"]) == (saved["id"], 2)
    page = rest.get("/api/tenant/dashboards", pageSize=10, page=0, textSearch="gate").json()
    assert [item["title"] for item in page["data"]] == ["Gateways"]
    assert rest.get("/api/tenant/dashboards", pageSize=10, page=0, textSearch="none").json()["data"] == []
    rest.delete(path)
    rest.get(path, status=404)
    rest.delete(path, status=404)
