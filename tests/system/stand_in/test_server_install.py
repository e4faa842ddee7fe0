"""`teg server` at a ThingsBoard: what it brings there, twice the same, and the alarms that follow from it."""

from typing import Any

import pytest
from click.testing import CliRunner, Result

from teg.console.server import server as command
from teg.console.server_side.parts import DASHBOARD, PROFILE
from teg.domain.ota.assignment import SwState, status
from teg.domain.server import TELEMETRY, encode_telemetry
from teg.domain.telemetry.reporting import Auxiliary
from teg.domain.telemetry.waiting_report import waiting_values
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.rest import Rest
from tests.support.stand_in_client import PahoDevice

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


@pytest.fixture
def server() -> Any:
    with ThingsBoard(rest_port=0) as server:
        yield server


@pytest.fixture
def rest(server: ThingsBoard) -> Any:
    client = Rest(server.rest_url)
    yield client
    client.close()


def teg_server(server: ThingsBoard, *arguments: str, password: str = "tenant") -> Result:
    given = [arguments[0], "--url", server.rest_url, "--user", "tenant@thingsboard.org", *arguments[1:]]
    return CliRunner().invoke(command, given, env={"TEG_SERVER_PASSWORD": password})


def saved(rest: Rest) -> tuple[dict[str, Any], dict[str, Any]]:
    found = []
    for part in (PROFILE, DASHBOARD):
        page = rest.get(part.listing, pageSize=10, page=0, textSearch=part.wanted[part.name_field]).json()
        [entry] = page["data"]
        found.append(rest.get(f"{part.path}/{entry['id']['id']}").json())
    return found[0], found[1]


class TestInstall:
    def test_a_blank_server_gets_both_and_the_second_time_nothing(self, server: ThingsBoard, rest: Rest) -> None:
        done = teg_server(server, "install")
        assert done.exit_code == 0, done.output
        assert done.output == "device profile 'TEG gateway': created\ndashboard 'TEG gateways': created\n"
        profile, dashboard = saved(rest)
        assert profile["profileData"]["alarms"] == PROFILE.wanted["profileData"]["alarms"]
        assert dashboard["configuration"] == DASHBOARD.wanted["configuration"]
        again = teg_server(server, "install")
        assert again.output == "device profile 'TEG gateway': unchanged\ndashboard 'TEG gateways': unchanged\n"
        assert saved(rest) == (profile, dashboard)

    def test_what_is_older_is_updated_and_what_the_operator_set_stays(self, server: ThingsBoard, rest: Rest) -> None:
        teg_server(server, "install")
        profile, dashboard = saved(rest)
        profile["profileData"]["alarms"] = []
        rest.post("/api/deviceProfile", {**profile, "provisionType": "DISABLED", "defaultQueueName": "Slow"})
        rest.post("/api/dashboard", {**dashboard, "configuration": {}, "mobileHide": True})
        done = teg_server(server, "install")
        assert done.output == "device profile 'TEG gateway': updated\ndashboard 'TEG gateways': updated\n"
        profile, dashboard = saved(rest)
        assert profile["profileData"]["alarms"] == PROFILE.wanted["profileData"]["alarms"]
        assert (profile["defaultQueueName"], profile["version"]) == ("Slow", 3)
        assert dashboard["configuration"] == DASHBOARD.wanted["configuration"] and dashboard["mobileHide"]

    def test_a_dry_run_changes_nothing(self, server: ThingsBoard, rest: Rest) -> None:
        server.add_device("pi-07", token="T7")
        done = teg_server(server, "install", "--dry-run", "--device", "pi-07")
        assert done.exit_code == 0 and done.output.count("would") == 3
        assert rest.get("/api/deviceProfiles", pageSize=10, page=0).json()["totalElements"] == 1

    def test_devices_get_the_profile_and_keep_what_they_have(self, server: ThingsBoard, rest: Rest) -> None:
        made = rest.post("/api/device", {"name": "pi-07", "label": "roof"}, params={"accessToken": "T7"}).json()
        assert teg_server(server, "install", "--device", "pi-07").output.endswith("pi-07: has got the profile\n")
        assert teg_server(server, "install", "--device", "pi-07").output.endswith("pi-07: has the profile\n")
        device = rest.get(f"/api/device/{made['id']['id']}").json()
        assert (device["type"], device["label"]) == ("TEG gateway", "roof")
        assert rest.get(f"/api/device/{made['id']['id']}/credentials").json()["credentialsId"] == "T7"

    def test_an_unknown_device_is_said(self, server: ThingsBoard) -> None:
        done = teg_server(server, "install", "--device", "pi-99")
        assert done.exit_code == 1 and "no device 'pi-99'" in done.output

    def test_a_wrong_password_is_said_and_not_shown(self, server: ThingsBoard) -> None:
        done = teg_server(server, "install", password="s3cret")
        assert done.exit_code == 1 and "Invalid username or password" in done.output and "s3cret" not in done.output

    def test_a_password_may_be_piped_in_and_its_absence_is_said(self, server: ThingsBoard) -> None:
        arguments = ["check", "--url", server.rest_url, "--user", "tenant@thingsboard.org"]
        done = CliRunner().invoke(command, arguments, input="tenant\n")
        assert done.exit_code == 1 and "missing" in done.output
        none = CliRunner().invoke(command, arguments, input="")
        assert none.exit_code == 1 and "set TEG_SERVER_PASSWORD" in none.output


class TestCheck:
    def test_says_what_is_there(self, server: ThingsBoard, rest: Rest) -> None:
        blank = teg_server(server, "check")
        assert blank.exit_code == 1 and blank.output.count(": missing") == 2
        server.add_device("pi-07", token="T7")
        teg_server(server, "install", "--device", "pi-07")
        good = teg_server(server, "check")
        assert good.exit_code == 0 and good.output.count(": as it should be") == 2
        assert good.output.endswith("devices of the profile: 1\n")
        _, dashboard = saved(rest)
        rest.post("/api/dashboard", {**dashboard, "configuration": {}})
        changed = teg_server(server, "check")
        assert changed.exit_code == 1 and "dashboard 'TEG gateways': differs" in changed.output


def test_two_who_change_one_dashboard_do_not_overwrite_each_other(server: ThingsBoard, rest: Rest) -> None:
    made = rest.post("/api/dashboard", {"title": "d"}).json()
    rest.post("/api/dashboard", {**made, "image": "first"})
    refused = rest.post("/api/dashboard", {**made, "image": "second"}, status=409).json()
    assert (refused["status"], refused["errorCode"]) == (409, 35) and "someone else" in refused["message"]
    assert rest.post("/api/dashboard", {**made, "version": None}).json()["version"] == 3


class Gateway:
    """The messages of a gateway, made by its own code, at moments of the test's choice."""

    def __init__(self, server: ThingsBoard) -> None:
        self._client = PahoDevice("T7").opened(server.host, server.port)
        self.heartbeat_ms: int | None = None

    def running_since_ms(self) -> None:
        return None

    def last_heartbeat_ms(self) -> int | None:
        return self.heartbeat_ms

    def alive(self, silent_ms: int) -> None:
        self.heartbeat_ms = NOW_MS - silent_ms
        own: Any = self
        self.send(Auxiliary(own, own, own, own).values(NOW_MS))

    def send(self, values: Any) -> None:
        self._client.publish(TELEMETRY, encode_telemetry(NOW_MS, values).decode())

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def gateway(server: ThingsBoard) -> Any:
    server.add_device("pi-07", token="T7")
    teg_server(server, "install", "--device", "pi-07")
    gateway = Gateway(server)
    yield gateway
    gateway.close()


class TestAlarms:
    @pytest.fixture
    def alarms(self, rest: Rest) -> Any:
        identity = rest.get("/api/tenant/devices", deviceName="pi-07").json()["id"]["id"]

        def found(search: str = "ACTIVE") -> list[tuple[str, str]]:
            page = rest.get(f"/api/alarm/DEVICE/{identity}", pageSize=10, page=0, searchStatus=search).json()
            return [(alarm["type"], alarm["severity"]) for alarm in page["data"]]

        return found

    def test_a_silent_controller_raises_an_alarm_that_grows_and_clears(self, gateway: Gateway, alarms: Any) -> None:
        gateway.alive(silent_ms=5_000)
        assert alarms() == []
        gateway.alive(silent_ms=HOUR_MS)
        assert alarms() == [("Silent controller", "WARNING")]
        gateway.alive(silent_ms=3 * HOUR_MS)
        assert alarms() == [("Silent controller", "CRITICAL")]
        gateway.alive(silent_ms=5_000)
        assert (alarms(), alarms("CLEARED")) == ([], [("Silent controller", "CRITICAL")])
        gateway.alive(silent_ms=HOUR_MS)
        assert alarms("ANY") == [("Silent controller", "WARNING"), ("Silent controller", "CRITICAL")]

    def test_backlog_and_dead_letters(self, gateway: Gateway, alarms: Any) -> None:
        gateway.send(waiting_values({"oldest_pending_ts": NOW_MS - 2 * HOUR_MS, "dead_letters": 3}, NOW_MS))
        assert sorted(alarms()) == [("Backlog", "WARNING"), ("Dead letters", "WARNING")]
        gateway.send(waiting_values({"oldest_pending_ts": NOW_MS - 7 * HOUR_MS, "dead_letters": 3}, NOW_MS))
        assert sorted(alarms()) == [("Backlog", "MAJOR"), ("Dead letters", "WARNING")]
        gateway.send(waiting_values({"oldest_pending_ts": None, "dead_letters": 0}, NOW_MS))
        assert alarms() == []

    def test_a_failed_update(self, gateway: Gateway, alarms: Any, rest: Rest) -> None:
        gateway.send(status("v1", "controller", SwState.FAILED, "v2 did not stay up"))
        assert alarms() == [("Failed update", "MAJOR")]
        gateway.send(status("v2", "controller", SwState.UPDATED))
        assert alarms() == []

    def test_a_device_of_another_profile_has_no_alarms(self, server: ThingsBoard, gateway: Gateway, rest: Rest) -> None:
        rest.post("/api/device", {"name": "other"}, params={"accessToken": "T8"})
        other = PahoDevice("T8").opened(server.host, server.port)
        other.publish(TELEMETRY, '{"dead_letters": 5}')
        identity = rest.get("/api/tenant/devices", deviceName="other").json()["id"]["id"]
        assert rest.get(f"/api/alarm/DEVICE/{identity}", pageSize=10, page=0).json()["totalElements"] == 0
        other.close()
