"""The REST API over HTTP: logging in, devices, credentials, and how errors are worded."""

import time
import uuid

import pytest
import requests

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.rest import Rest
from tests.support.stand_in_client import PahoDevice

LOGIN = {"username": "tenant@thingsboard.org", "password": "tenant"}


def status_of(server: ThingsBoard, device: Device, headers: dict[str, str]) -> tuple[int, int | None]:
    """(HTTP status, ThingsBoard's error code) of a request with these headers."""
    answer = requests.get(f"{server.rest_url}/api/device/{device.id}", headers=headers, timeout=20)
    return answer.status_code, answer.json().get("errorCode")


def test_logging_in_gives_tokens_that_can_be_refreshed(server: ThingsBoard, rest: Rest, device: Device) -> None:
    tokens = rest.post("/api/auth/login", LOGIN).json()
    assert tokens["token"].count(".") == 2
    anew = rest.post("/api/auth/token", {"refreshToken": tokens["refreshToken"]}).json()
    assert status_of(server, device, {"X-Authorization": f"Bearer {anew['token']}"}) == (200, None)
    assert status_of(server, device, {"Authorization": f"Bearer {tokens['token']}"}) == (200, None)
    rest.post("/api/auth/token", {"refreshToken": tokens["token"]}, status=401)


@pytest.mark.parametrize("login", [{**LOGIN, "password": "x"}, {"username": "x", "password": "tenant"}, {}])
def test_a_wrong_login_is_refused(server: ThingsBoard, login: dict[str, str]) -> None:
    answer = requests.post(f"{server.rest_url}/api/auth/login", json=login, timeout=20)
    body = answer.json()
    assert abs(body.pop("timestamp") - time.time() * 1000) < 60_000
    assert body == {"status": 401, "message": "Invalid username or password", "errorCode": 10}
    assert answer.status_code == 401


def test_nothing_is_answered_without_a_token_of_ours(server: ThingsBoard, rest: Rest, device: Device) -> None:
    tokens = rest.post("/api/auth/login", LOGIN).json()
    head, body, signature = tokens["token"].split(".")
    wrong = ["", "Bearer", "Bearer x", f"Bearer {head}.{body}.x{signature}", f"Bearer {head}.x{body}.{signature}"]
    wrong += [f"Basic {tokens['token']}", f"Bearer {tokens['refreshToken']}", "Bearer \xe9"]
    assert status_of(server, device, {}) == (401, 10)
    for header in wrong:
        assert status_of(server, device, {"X-Authorization": header}) == (401, 10), header
    assert requests.delete(f"{server.rest_url}/api/device/{device.id}", timeout=20).status_code == 401
    assert [known.name for known in server.devices] == ["pi-07"]


def test_a_token_ends(rest: Rest, monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    later_s = time.time() + 9_001
    monkeypatch.setattr("teg.simulator.thingsboard.rest.accounts.time.time", lambda: later_s)
    answer = rest.get(f"/api/device/{device.id}", status=401).json()
    assert (answer["message"], answer["errorCode"]) == ("Token has expired", 11)


def test_the_token_of_one_stand_in_is_none_of_another(server: ThingsBoard, device: Device) -> None:
    with ThingsBoard(rest_port=0) as other:
        token = requests.post(f"{other.rest_url}/api/auth/login", json=LOGIN, timeout=20).json()["token"]
    assert status_of(server, device, {"X-Authorization": f"Bearer {token}"}) == (401, 10)


def test_a_device_is_created_and_connects(server: ThingsBoard, rest: Rest) -> None:
    made = rest.post("/api/device", {"name": "pi-08", "label": "roof"}, params={"accessToken": "T8"}).json()
    assert (made["name"], made["type"], made["label"]) == ("pi-08", "default", "roof")
    assert made["id"] == {"entityType": "DEVICE", "id": server.device("pi-08").id}
    assert rest.get(f"/api/device/{made['id']['id']}").json() == made
    PahoDevice("T8").opened(server.host, server.port).close()
    credentials = rest.get(f"/api/device/{made['id']['id']}/credentials").json()
    assert (credentials["credentialsType"], credentials["credentialsId"]) == ("ACCESS_TOKEN", "T8")
    assert credentials["deviceId"] == made["id"]


def test_a_device_without_a_token_gets_a_random_one(server: ThingsBoard, rest: Rest) -> None:
    made = rest.post("/api/device", {"name": "pi-08"}).json()
    token = rest.get(f"/api/device/{made['id']['id']}/credentials").json()["credentialsId"]
    assert len(token) == 20
    PahoDevice(token).opened(server.host, server.port).close()


def test_a_device_is_changed(server: ThingsBoard, rest: Rest, device: Device) -> None:
    body = rest.get(f"/api/device/{device.id}").json()
    changed = rest.post("/api/device", {**body, "name": "pi-07b", "label": "cellar"}).json()
    assert (changed["id"], changed["name"], changed["label"]) == (body["id"], "pi-07b", "cellar")
    assert [known.name for known in server.devices] == ["pi-07b"]
    PahoDevice("T1").opened(server.host, server.port).close()
    server.add_device("taken")
    rest.post("/api/device", {**body, "name": "taken"}, status=400)


def test_devices_are_found_by_name_and_page_by_page(server: ThingsBoard, rest: Rest, device: Device) -> None:
    for number in range(4):
        server.add_device(f"more-{number}")
    for path in ("/api/tenant/devices", "/api/tenant/device"):
        assert rest.get(path, deviceName="pi-07").json()["id"]["id"] == device.id
    page = rest.get("/api/tenant/devices", pageSize=2, page=2).json()
    assert ([item["name"] for item in page["data"]], page["hasNext"]) == (["more-3"], False)
    assert (page["totalPages"], page["totalElements"]) == (3, 5)
    rest.get("/api/tenant/devices", deviceName="none", status=404)
    rest.get("/api/tenant/devices", status=400)
    rest.get("/api/tenant/devices", pageSize=0, page=0, status=400)


def test_a_deleted_device_is_closed_and_unknown(server: ThingsBoard, rest: Rest, device: Device) -> None:
    client = PahoDevice("T1").opened(server.host, server.port)
    rest.delete(f"/api/device/{device.id}")
    client.wait_closed()
    client.close()
    answer = rest.get(f"/api/device/{device.id}", status=404).json()
    assert (answer["message"], answer["errorCode"]) == (f"Device with id [{device.id}] is not found", 32)
    assert server.devices == []


def test_new_credentials_close_the_session(server: ThingsBoard, rest: Rest, device: Device) -> None:
    client = PahoDevice("T1").opened(server.host, server.port)
    known = rest.get(f"/api/device/{device.id}/credentials").json()
    rest.post("/api/device/credentials", {**known, "credentialsId": "T2"})
    client.wait_closed()
    client.close()
    PahoDevice("T2").opened(server.host, server.port).close()
    basic = {**known, "credentialsType": "MQTT_BASIC", "credentialsValue": '{"userName": "u", "password": "p"}'}
    assert rest.post("/api/device/credentials", basic).json()["credentialsType"] == "MQTT_BASIC"
    PahoDevice("u", "p").opened(server.host, server.port).close()
    rest.post("/api/device/credentials", {**known, "credentialsType": "FINGERPRINT"}, status=400)
    rest.post("/api/device/credentials", {**known, "credentialsId": ""}, status=400)
    rest.post("/api/device/credentials", {**basic, "credentialsValue": "[]"}, status=400)
    rest.post("/api/device/credentials", {**known, "deviceId": None}, status=400)


@pytest.mark.parametrize(
    ("body", "token", "said"),
    [
        ({"name": "pi-07"}, "T9", "such name already exists"),
        ({"name": "pi-09"}, "T1", "already assigned"),
        ({"name": "  "}, "T9", "name should be specified"),
        ({}, "T9", "name should be specified"),
        ({"name": "pi-09", "id": "text"}, "T9", "Invalid request body"),
        ([], "T9", "Invalid request body"),
    ],
)
def test_what_cannot_be_created_is_said(
    server: ThingsBoard, rest: Rest, device: Device, body: object, token: str, said: str
) -> None:
    answer = rest.post("/api/device", body, status=400, params={"accessToken": token}).json()
    assert said in answer["message"]
    assert [known.name for known in server.devices] == ["pi-07"]


def test_an_id_that_is_none(rest: Rest) -> None:
    assert rest.get("/api/device/x", status=400).json()["message"] == "Invalid UUID string: x"
    rest.get(f"/api/device/{uuid.uuid4()}/credentials", status=404)
    rest.delete(f"/api/device/{uuid.uuid4()}", status=404)
    rest.post("/api/device", {"name": "x", "id": {"id": str(uuid.uuid4())}}, status=404)
    rest.get("/api/nothing/here", status=404)


def test_a_failure_inside_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_device: object) -> None:
        raise RuntimeError("broken inside")

    monkeypatch.setattr("teg.simulator.thingsboard.rest.devices.device_json", fail)
    with pytest.raises(AssertionError, match="broken inside"), ThingsBoard(rest_port=0) as server:
        rest, device = Rest(server.rest_url), server.add_device("pi-07")
        rest.get(f"/api/device/{device.id}", status=500)
        rest.close()


def test_without_a_port_there_is_no_url() -> None:
    with ThingsBoard() as server, pytest.raises(ValueError, match="rest_port"):
        _ = server.rest_url
