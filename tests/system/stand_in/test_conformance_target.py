"""A server is named clearly or refused clearly, what is made there is taken away, and the report is a file."""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_versions import behaviour_of
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.conformance import PREFIX, Tenant, is_leftover, unique_name
from tests.support.conformance_target import NEEDED, CannotTest, Target, checked, named_target

ROOT = Path(__file__).resolve().parents[3]
NAMED = {
    "TB_TEST_URL": "https://tb.example.org/",
    "TB_TEST_MQTT": "tb.example.org:1883",
    "TB_TEST_USER": "t@example.org",
    "TB_TEST_PASSWORD": "p",
}


def without_names() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("TB_TEST_", "STAND_IN_"))}


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(rest_port=0) as server:
        yield server


@pytest.fixture
def target(server: ThingsBoard) -> Target:
    return Target(server.rest_url, server.host, server.port, version="", is_stand_in=False)


def refusal(target: Target) -> str:
    with pytest.raises(CannotTest) as problem:
        checked(target)
    return str(problem.value)


class TestNames:
    def test_none_is_the_stand_in(self) -> None:
        assert named_target({}) is None

    @pytest.mark.parametrize("name", NEEDED)
    def test_what_is_missing_is_named(self, name: str) -> None:
        with pytest.raises(CannotTest, match=f"missing: {name}$"):
            named_target({**NAMED, name: ""})

    def test_the_limited_tenants_password(self) -> None:
        named = {**NAMED, "TB_TEST_LIMITED_USER": "l@example.org"}
        with pytest.raises(CannotTest, match="missing: TB_TEST_LIMITED_PASSWORD"):
            named_target(named, "TB_TEST_LIMITED_USER")
        found = named_target({**named, "TB_TEST_LIMITED_PASSWORD": "q"}, "TB_TEST_LIMITED_USER")
        assert found is not None
        assert (found.user, found.password) == ("l@example.org", "q")

    @pytest.mark.parametrize(
        ("text", "seen"),
        [
            ("tb.example.org:1883", (False, "tb.example.org", 1883)),
            ("mqtt://tb.example.org:11883", (False, "tb.example.org", 11883)),
            ("mqtts://tb.example.org:8843", (True, "tb.example.org", 8843)),
            ("[::1]:1883", (False, "::1", 1883)),
        ],
    )
    def test_the_mqtt_port(self, text: str, seen: tuple[bool, str, int]) -> None:
        target = named_target({**NAMED, "TB_TEST_MQTT": text})
        assert target is not None
        assert (target.tls, target.host, target.port) == seen
        assert target.url == "https://tb.example.org"

    @pytest.mark.parametrize("text", ["tb.example.org", "http://tb.example.org:80", "tb.example.org:mqtt", ":1883"])
    def test_what_is_no_mqtt_port(self, text: str) -> None:
        with pytest.raises(CannotTest, match="TB_TEST_MQTT"):
            named_target({**NAMED, "TB_TEST_MQTT": text})

    def test_a_missing_file(self) -> None:
        with pytest.raises(CannotTest, match="TB_TEST_CA: /no/such cannot be read"):
            named_target({**NAMED, "TB_TEST_CA": "/no/such"})


class TestLogin:
    def test_a_tenants_administrator(self, target: Target) -> None:
        assert checked(target).version == "4.2.1.1"

    def test_a_wrong_password(self, target: Target) -> None:
        assert "TB_TEST_USER, TB_TEST_PASSWORD" in refusal(replace(target, password="wrong"))

    def test_a_system_administrator(self, target: Target) -> None:
        said = refusal(replace(target, user="sysadmin@thingsboard.org", password="sysadmin"))
        assert said == "TB_TEST_USER: sysadmin@thingsboard.org is a SYS_ADMIN; a tenant administrator is needed"

    def test_nobody_listens(self, target: Target) -> None:
        assert refusal(replace(target, url="http://127.0.0.1:1")).startswith("TB_TEST_URL: http://127.0.0.1:1 does not")
        assert refusal(replace(target, port=1)).startswith("TB_TEST_MQTT: 127.0.0.1:1: ")

    def test_the_wrong_ports(self, server: ThingsBoard, target: Target) -> None:
        rest_port = int(server.rest_url.rpartition(":")[2])
        assert "does not speak MQTT" in refusal(replace(target, port=rest_port))
        assert "TB_TEST_URL" in refusal(replace(target, url=f"{server.rest_url}/somewhere"))


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not into the test's output."""


class TestCertificates:
    def test_the_rest_apis(self, target: Target, tmp_path: Path) -> None:
        tls = ServerTls.create(tmp_path / "one")
        other = ServerTls.create(tmp_path / "other")
        with http.server.HTTPServer(("127.0.0.1", 0), _Refusing) as web:
            web.socket = tls.context().wrap_socket(web.socket, server_side=True)
            threading.Thread(target=web.serve_forever, daemon=True).start()
            secure = replace(target, url=f"https://127.0.0.1:{web.server_port}")
            assert "not trusted, see TB_TEST_CA" in refusal(replace(secure, ca_file=str(other.ca_file)))
            assert "not trusted, see TB_TEST_CA" in refusal(secure)
            assert "refuses tenant@" in refusal(replace(secure, ca_file=str(tls.ca_file)))
            web.shutdown()

    def test_that_of_mqtt(self, tmp_path: Path) -> None:
        tls = ServerTls.create(tmp_path)
        with ThingsBoard(rest_port=0, tls=tls) as server:
            plain = Target(server.rest_url, server.host, server.port, is_stand_in=False)
            secure = replace(plain, tls=True)
            assert "mqtts:// where it is TLS" in refusal(plain)
            assert "see TB_TEST_CA" in refusal(secure)
            assert checked(replace(secure, ca_file=str(tls.ca_file)))


class TestTidiness:
    def test_all_is_deleted_and_what_cannot_be_is_said(self, server: ThingsBoard, target: Target) -> None:
        tenant = Tenant(target.rest(), target)
        first, second = tenant.device(), tenant.device()
        profile = tenant.profile()
        others = {"name": "somebody's", "deviceProfileId": profile["id"]}
        tenant.rest.post("/api/device", others)
        server.delete_device(first.name)  # a test did it itself
        with pytest.raises(AssertionError, match=f"left behind: .*{profile['id']['id']}"):
            tenant.clean_up()
        assert [device.name for device in server.devices] == ["somebody's"]
        assert second.name.startswith(PREFIX)

    def test_leftovers_of_an_earlier_run(
        self, server: ThingsBoard, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now_s = time.time()
        with monkeypatch.context() as then:
            then.setattr("tests.support.conformance.time.time", lambda: now_s - 3 * 3600)
            killed = Tenant(target.rest(), target)
            device = killed.device(deviceProfileId=killed.profile()["id"])
            killed.assign(device, killed.package(b"x", "1"))
            killed.make("/api/customer", {"title": unique_name()})
            killed.rest.close()
        tenant = Tenant(target.rest(), target)
        mine = tenant.device()
        server.add_device("conformance-of-somebody-else")
        assert len(tenant.sweep()) == 4
        assert sorted(known.name for known in server.devices) == [mine.name, "conformance-of-somebody-else"]
        tenant.clean_up()

    @pytest.mark.parametrize("name", ["pi-07", "conformance-", "conformance-x-1", "of conformance-1-1"])
    def test_other_names(self, name: str) -> None:
        assert not is_leftover(name, time.time())


@pytest.mark.parametrize(
    ("version", "broken"),
    [("4.2", True), ("4.2.1", True), ("4.2.1.1PE", False), ("4.4.0-SNAPSHOT", False), ("unknown", False), ("", False)],
)
def test_a_version_nobody_has_entered_behaves_as_the_one_before(version: str, broken: bool) -> None:
    assert behaviour_of(version).url_package_needs_algorithm is broken


def test_make_without_a_server_says_what_it_needs() -> None:
    options = {"cwd": ROOT, "env": without_names(), "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(["make", "conformance"], **options)  # type: ignore[call-overload]
    assert done.returncode == 2
    assert all(name in done.stderr for name in NEEDED)


def suite(place: Path, *arguments: str, **environment: str) -> Mapping[str, object]:
    """The report of a run against the stand-in."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments]
    merged = {**without_names(), "TB_TEST_PATIENCE_S": "3", "TB_TEST_REPORT": str(place), **environment}
    subprocess.run(command, cwd=ROOT, env=merged, capture_output=True, timeout=120)
    body: Mapping[str, object] = json.loads(place.with_name(f"{place.name}.json").read_text())
    return body


def test_the_report(tmp_path: Path) -> None:
    right = suite(tmp_path / "right", "tests/conformance/test_activity.py")
    rows: list[dict[str, str]] = right["statements"]  # type: ignore[assignment]
    assert {row["verdict"] for row in rows} == {"holds"}
    assert {"group": "activity", "statement": "active", "expected": "True", "seen": "True", "verdict": "holds"} in rows
    assert "| active | True | True | holds |" in (tmp_path / "right.md").read_text()
    wrong = suite(
        tmp_path / "wrong", "tests/conformance/test_activity.py", STAND_IN_DEVIATION="activity: nothing is noted"
    )
    said: list[dict[str, str]] = wrong["statements"]  # type: ignore[assignment]
    assert [row["verdict"] for row in said] == ["differs", "differs"]
    assert "never came" in said[0]["seen"]
