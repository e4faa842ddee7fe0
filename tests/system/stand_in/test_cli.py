"""The stand-in as a process: its first line, its accounts, and its end."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Rest
from tests.support.stand_in_client import TELEMETRY, PahoDevice, eventually

ROOT = Path(__file__).resolve().parents[3]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "teg.simulator.thingsboard", "--port", "0", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def line(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def last_line(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> Any:
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def deliver(place: dict[str, Any], *payloads: str) -> None:
    client = PahoDevice("T1", ca_file=place["ca_file"]).opened("localhost", place["port"])
    for payload in payloads:
        client.publish(TELEMETRY, payload)
    client.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_account_of_what_arrived(start: Start, tmp_path: Path, number: int) -> None:
    state = tmp_path / "state.json"
    process = start("--device", "pi:07:T1", "--tls-dir", tmp_path, "--interval", "0.05", "--state-file", state)
    place = line(process)["listening"]
    deliver(place, '[{"ts": 5, "values": {"a": 1, "b": "x"}}, {"ts": 6, "values": {"a": 2}}]')
    deliver(place, '{"ts": 5, "values": {"a": 1}}', '{"ts": 6, "values": {"a": 3}}')
    eventually(lambda: state.exists() and "x" in json.loads(state.read_text())["devices"]["pi:07"]["latest"].values())
    account = last_line(process, number)
    assert account["final"] is True
    device = account["devices"]["pi:07"]
    assert device["publishes"] == 3
    assert device["records"] == 4
    assert device["distinct"] == 3
    assert device["duplicates"] == 1
    assert device["conflicts"] == 1
    assert device["keys"] == {"a": 2, "b": 1}
    assert device["latest"] == {"a": 3, "b": "x"}
    assert device["sessions"] == 2
    assert json.loads(state.read_text())["final"] is True


def test_accounts_come_by_themselves_and_certificates_are_kept(start: Start, tmp_path: Path) -> None:
    for _ in range(2):
        process = start("--device", "pi:T1", "--tls-dir", tmp_path, "--interval", "0.02", "--store", "count")
        place = line(process)["listening"]
        certificate = Path(place["ca_file"]).read_bytes()
        deliver(place, '{"a": 1}')
        while not line(process)["devices"]["pi"]["records"]:
            pass
        assert last_line(process)["devices"]["pi"]["distinct"] == 0
    assert Path(place["ca_file"]).read_bytes() == certificate


def test_shared_attributes_provisioning_and_limits(start: Start, tmp_path: Path) -> None:
    attributes = tmp_path / "shared.json"
    attributes.write_text('{"FILES": {}}')
    devices = ("--device", "pi:T1", "--shared", f"pi:{attributes}", "--provision", "k:s")
    process = start(*devices, "--rate-limits", "50:1", "--interval", "0")
    port = line(process)["listening"]["port"]
    client = PahoDevice("T1").opened("127.0.0.1", port)
    client.publish("v1/devices/me/attributes/request/1", "{}")
    assert client.wait_message("v1/devices/me/attributes/response/1") == [b'{"shared":{"FILES":{}}}']
    client.publish("v1/devices/me/rpc/request/1", '{"method": "getSessionLimits"}')
    (limits,) = client.wait_message("v1/devices/me/rpc/response/1")
    assert json.loads(limits)["rateLimits"]["messages"] == "50:1"
    client.close()
    new = PahoDevice("provision").opened("127.0.0.1", port)
    new.publish("/provision/request", '{"deviceName":"n","provisionDeviceKey":"k","provisionDeviceSecret":"s"}')
    new.wait_message("/provision/response")
    new.close()
    assert set(last_line(process)["devices"]) == {"pi", "n"}


def test_a_crash_forgets_what_is_not_stored_and_an_end_does_not(start: Start, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    slow = ("--store-delay", "1000", "--pack-size", "10", "--pack-order", "attributes_first")
    process = start("--device", "pi:T1", *slow, "--interval", "0.05", "--state-file", state)
    place = line(process)["listening"]
    client = PahoDevice("T1").opened("127.0.0.1", place["port"])
    client.publish(TELEMETRY, '{"ts": 5, "values": {"a": 1}}')
    eventually(lambda: state.exists() and json.loads(state.read_text())["queued"] == 1)
    process.send_signal(signal.SIGUSR1)
    client.wait_closed()
    client.close()
    deliver(place, '{"ts": 6, "values": {"a": 2}}')
    account = last_line(process)["devices"]["pi"]
    assert (account["records"], account["distinct"], account["latest"]) == (2, 1, {"a": 2})


def test_the_rest_api_of_the_process(start: Start) -> None:
    process = start("--device", "pi:T1", "--rest-port", "0", "--interval", "0")
    rest = Rest(line(process)["listening"]["rest_url"])
    assert rest.get("/api/tenant/devices", deviceName="pi").json()["name"] == "pi"
    rest.close()
    assert set(last_line(process)["devices"]) == {"pi"}


def test_client_attributes_can_be_dropped(start: Start) -> None:
    process = start("--device", "pi:T1", "--drop-client-attributes", "--interval", "0")
    client = PahoDevice("T1").opened("127.0.0.1", line(process)["listening"]["port"])
    client.publish("v1/devices/me/attributes", '{"a": 1}')
    client.close()
    assert last_line(process)["devices"]["pi"]["client_attributes"] == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--device", "no-token"),
        ("--device", "a:1", "--device", "a:2"),
        ("--rate-limits", "many"),
        ("--shared", "pi:/nowhere"),
        ("--shared", "pi:/dev/null"),
        ("--store", "all"),
        ("--pack-size", "0"),
        ("--store-delay", "-1"),
        ("--interval", "nan"),
        ("--server-version", "3"),
        ("--host", "203.0.113.1"),
    ],
)
def test_wrong_options_are_named(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "teg.simulator.thingsboard", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_shared_attributes_need_their_device(tmp_path: Path) -> None:
    attributes = tmp_path / "shared.json"
    attributes.write_text("{}")
    command = [sys.executable, "-m", "teg.simulator.thingsboard", "--shared", f"pi:{attributes}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "there is no --device pi" in done.stderr


def test_help_explains_the_output() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "teg.simulator.thingsboard", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0
    assert '"listening"' in done.stdout
    assert "--tls-dir" in done.stdout


def test_a_reader_that_goes_away_ends_the_process(start: Start) -> None:
    process = start("--interval", "0.02")
    line(process)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(30) == 0
