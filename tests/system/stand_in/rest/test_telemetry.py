"""Attributes and time series over the REST API, as a device on MQTT sees and makes them."""

import json
import time
import uuid

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.rest import Rest
from tests.support.stand_in_client import ATTRIBUTES, TELEMETRY, PahoDevice


@pytest.fixture
def path(device: Device) -> str:
    return f"/api/plugins/telemetry/DEVICE/{device.id}"


def test_what_the_operator_writes_is_pushed(rest: Rest, device: Device, client: PahoDevice, path: str) -> None:
    client.subscribe(ATTRIBUTES)
    rest.post(f"{path}/SHARED_SCOPE", {"FILES": {"cfg": {"path": "/x"}}, "limit": "42"})
    rest.post(f"{path}/attributes/SHARED_SCOPE", {"other": True})
    rest.post(f"/api/plugins/telemetry/{device.id}/SHARED_SCOPE", {"third": 1.5})
    rest.delete(f"{path}/SHARED_SCOPE", keys="FILES,never_there")
    pushes = [json.loads(payload) for payload in client.wait_message(ATTRIBUTES, 4)]
    assert pushes == [
        {"FILES": {"cfg": {"path": "/x"}}, "limit": 42},
        {"other": True},
        {"third": 1.5},
        {"deleted": ["FILES", "never_there"]},
    ]
    assert device.shared_attributes == {"limit": 42, "other": True, "third": 1.5}


def test_attributes_are_read_by_scope(rest: Rest, client: PahoDevice, path: str) -> None:
    before_ms = time.time_ns() // 1_000_000
    client.publish(ATTRIBUTES, '{"a": 1, "b": {"c": []}, "d": "x"}')
    rest.post(f"{path}/SHARED_SCOPE", {"s": 1})
    rest.post(f"{path}/SERVER_SCOPE", {"written": True})
    found = rest.get(f"{path}/values/attributes/CLIENT_SCOPE", keys="a,b,none").json()
    assert {item["key"]: item["value"] for item in found} == {"a": 1, "b": {"c": []}}
    assert all(before_ms <= item["lastUpdateTs"] <= time.time_ns() // 1_000_000 for item in found)
    noted = ["active", "lastActivityTime", "lastConnectTime"]
    everything = ["a", *noted, "b", "d", "s", "written"]
    assert sorted(item["key"] for item in rest.get(f"{path}/values/attributes").json()) == sorted(everything)
    assert rest.get(f"{path}/keys/attributes/SERVER_SCOPE").json() == [*noted, "written"]
    assert rest.get(f"{path}/keys/attributes").json() == sorted(everything)
    rest.delete(f"{path}/SERVER_SCOPE", keys="written")
    assert rest.get(f"{path}/keys/attributes/SERVER_SCOPE").json() == noted


def test_a_device_does_not_see_the_server_scope(rest: Rest, client: PahoDevice, path: str) -> None:
    rest.post(f"{path}/SERVER_SCOPE", {"secret": 1})
    client.publish("v1/devices/me/attributes/request/1", "{}")
    assert client.wait_message("v1/devices/me/attributes/response/1") == [b"{}"]


@pytest.mark.parametrize(
    ("scope", "body", "said"),
    [
        ("CLIENT_SCOPE", "{}", "Invalid scope: CLIENT_SCOPE"),
        ("ANY", '{"a": 1}', "Invalid scope: ANY"),
        ("SHARED_SCOPE", "[]", "Request is not a JSON object"),
        ("SHARED_SCOPE", "{}", "No attributes data found in request body!"),
        ("SHARED_SCOPE", "no json", "Unable to parse attributes payload"),
    ],
)
def test_what_cannot_be_written_is_said(rest: Rest, path: str, scope: str, body: str, said: str) -> None:
    assert said in rest.post(f"{path}/{scope}", status=400, data=body).text


def test_deleting_needs_keys(rest: Rest, path: str) -> None:
    assert rest.delete(f"{path}/SHARED_SCOPE", status=400).text == "Empty keys: "


def test_latest_values_are_text_unless_asked_for_as_they_are(rest: Rest, client: PahoDevice, path: str) -> None:
    client.publish(TELEMETRY, '[{"ts": 6, "values": {"a": 2.5}}, {"ts": 5, "values": {"a": 1, "b": true, "c": [1]}}]')
    client.publish(TELEMETRY, '{"ts": 5, "values": {"d": 0.00001, "e": "x", "f": 7}}')
    latest = rest.get(f"{path}/values/timeseries").json()
    texts = {"b": "true", "c": "[1]", "d": "1.0E-5", "e": "x", "f": "7"}
    assert latest.pop("a") == [{"ts": 6, "value": "2.5"}]
    assert latest == {key: [{"ts": 5, "value": value}] for key, value in texts.items()}
    strict = rest.get(f"{path}/values/timeseries", keys="a,b,c,d", useStrictDataTypes="true").json()
    assert [strict[key][0]["value"] for key in "abcd"] == [2.5, True, [1], 1e-5]
    assert rest.get(f"{path}/keys/timeseries").json() == ["a", "b", "c", "d", "e", "f"]


def test_a_key_without_a_value_comes_with_null(rest: Rest, path: str) -> None:
    (point,) = rest.get(f"{path}/values/timeseries", keys="none").json()["none"]
    assert point["value"] is None
    assert rest.get(f"{path}/values/timeseries").json() == {}


def test_a_range_does_not_include_its_end(rest: Rest, client: PahoDevice, path: str) -> None:
    client.publish(TELEMETRY, json.dumps([{"ts": ts, "values": {"a": ts}} for ts in range(1, 301)]))
    url = f"{path}/values/timeseries"
    found = rest.get(url, keys="a,none", startTs=10, endTs=13).json()
    assert found == {"a": [{"ts": ts, "value": str(ts)} for ts in (12, 11, 10)]}
    assert len(rest.get(url, keys="a", startTs=0, endTs=1000).json()["a"]) == 100
    first = rest.get(url, keys="a", startTs=0, endTs=1000, orderBy="ASC", limit=2, useStrictDataTypes="true").json()
    assert first == {"a": [{"ts": 1, "value": 1}, {"ts": 2, "value": 2}]}
    assert rest.get(f"{url}/history", keys="a", startTs=10, endTs=13).json() == found
    everything = rest.get(url, keys="a", startTs=0, endTs=1000, limit=100_000).json()["a"]
    assert {point["ts"] for point in everything} == set(range(1, 301))


def test_a_range_that_cannot_be_had_is_said(rest: Rest, path: str) -> None:
    url = f"{path}/values/timeseries"
    rest.get(url, keys="a", startTs="noon", endTs=5, status=400)
    rest.get(url, keys="a", startTs=0, endTs=5, limit="all", status=400)
    rest.get(url, keys="a", startTs=0, endTs=5, agg="AVG", interval=1000, status=501)


def test_what_the_server_wrote_itself_is_in_the_series(rest: Rest, device: Device, path: str) -> None:
    device.assign_software("ctl", "v1", b"data")
    latest = rest.get(f"{path}/values/timeseries", keys="sw_state,target_sw_version").json()
    assert [latest[key][0]["value"] for key in latest] == ["INITIATED", "v1"]


def test_series_that_the_operator_writes_are_parsed_once(rest: Rest, device: Device, path: str) -> None:
    records = [{"ts": 5, "values": {"a": 1, "b": None}}, {"ts": 6, "values": {"a": 2e7}}]
    rest.post(f"{path}/timeseries/ANY", records)
    rest.post(f"{path}/timeseries/ANY", {"c": "007"})
    assert device.telemetry()["a", 6] == 2e7 and type(device.telemetry()["a", 6]) is float
    assert (device.telemetry()["a", 5], device.latest("c")) == (1, 7)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[]", "No timeseries data found in request body!"),
        ('{"ts": 1, "values": {}}', "No timeseries data found in request body!"),
        ("no json", "Unable to parse timeseries payload"),
    ],
)
def test_series_that_cannot_be_written_are_said(rest: Rest, path: str, body: str, said: str) -> None:
    assert said in rest.post(f"{path}/timeseries/ANY", status=400, data=body).text


def test_only_what_is_stored_is_found(server: ThingsBoard, rest: Rest, client: PahoDevice, path: str) -> None:
    server.faults.store_delay_s = 3.0
    client.publish(TELEMETRY, '{"ts": 5, "values": {"a": 1}}')
    client.publish(ATTRIBUTES, '{"b": 1}')
    assert rest.get(f"{path}/values/timeseries").json() == {}
    server.wait_stored()
    assert rest.get(f"{path}/values/timeseries").json() == {"a": [{"ts": 5, "value": "1"}]}
    assert [item["key"] for item in rest.get(f"{path}/values/attributes/CLIENT_SCOPE").json()] == ["b"]


def test_an_unknown_device(rest: Rest) -> None:
    path = f"/api/plugins/telemetry/DEVICE/{uuid.uuid4()}"
    assert rest.get(f"{path}/values/timeseries", status=404).text == "Device with requested id wasn't found!"
    rest.post(f"{path}/SHARED_SCOPE", {"a": 1}, status=404)
