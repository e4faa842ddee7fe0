"""Programs that were written for ThingsBoard by others find the stand-in to be one."""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from teg.simulator.thingsboard.ota_packages import Package
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import wait_until

ROOT = Path(__file__).resolve().parents[3]
CLIENTS = ROOT / ".venv-clients"
PATIENCE_S = 40

pytestmark = pytest.mark.skipif(
    not (CLIENTS / ".ready").exists() and os.environ.get("CI", "").lower() != "true",
    reason="needs `make .venv-clients/.ready`",
)


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        yield server


@contextmanager
def running(command: list[str | Path], directory: Path, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Its standard error is in `errors` of the directory."""
    own = {"PATH": f"{CLIENTS / 'bin'}:{os.environ['PATH']}", "HOME": str(directory), **environment}
    with (directory / "errors").open("w") as errors:
        process = subprocess.Popen(
            command, cwd=directory, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.stdout.close()


class Sdk:
    """`do` sends an action to tests/support/sdk_session.py, `hear` waits for an event of that name."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._heard: queue.Queue[dict[str, Any]] = queue.Queue()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def do(self, action: str, *arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([action, *arguments]) + "\n")
        self._process.stdin.flush()

    def hear(self, event: str) -> Any:
        while event not in (heard := self._heard.get(timeout=PATIENCE_S)):
            continue
        return heard[event]

    def end(self) -> int:
        """No more actions; return its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = self._process.wait(PATIENCE_S)
        self._listener.join(PATIENCE_S)
        return status

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._heard.put(json.loads(line))


def test_the_python_sdk_sends_reads_answers_and_updates(server: ThingsBoard, tmp_path: Path) -> None:
    device = server.add_device("pi-07", token="T7")
    session = ROOT / "tests" / "support" / "sdk_session.py"
    command: list[str | Path] = [CLIENTS / "bin" / "python", "-P", session, server.host, str(server.port), "T7"]
    with running(command, tmp_path) as process:
        sdk = Sdk(process)
        device.wait_for(lambda it: it.connected, PATIENCE_S, "a session")
        records = [{"ts": 1_800_000_000_000 + number, "values": {"n": number}} for number in range(300)]
        sdk.do("telemetry", records)
        assert sdk.hear("telemetry") == 0, "acknowledged"
        assert device.points_per_key()["n"] == 300 and device.latest("n") == 299
        sdk.do("attributes", {"model": "x"})
        assert sdk.hear("attributes") == 0 and device.client_attributes["model"] == "x"
        sdk.do("watch")
        sdk.do("request", ["model"], ["limit"])
        assert sdk.hear("found") == {"client": {"model": "x"}}
        device.set_shared({"limit": 5})
        assert sdk.hear("pushed") == {"limit": 5}
        outcome = device.rpc("sing", {"a": [1, None]})
        assert (outcome.status, outcome.response) == (200, {"echo": {"a": [1, None]}})
        data = bytes(range(256)) * 20
        sdk.do("runs", "ctl", "v1")
        device.assign_firmware(Package("ctl", "v2", data))
        sdk.do("update")
        device.wait_for(lambda it: it.latest("fw_state") == "UPDATED", PATIENCE_S, "the end of the update")
        assert (tmp_path / "ctl").read_bytes() == data, "in six chunks"
        assert sdk.end() == 0, (tmp_path / "errors").read_text()


def gateway_configuration(server: ThingsBoard) -> dict[str, Any]:
    thingsboard = {
        "host": server.host,
        "port": server.port,
        "security": {"type": "accessToken", "accessToken": "T1"},
        "remoteShell": False,
        "remoteConfiguration": False,
        "statistics": {"enable": True, "statsSendPeriodInSeconds": 2},
        "deviceFiltering": {"enable": False},
        "maxPayloadSizeBytes": 8196,
        "minPackSendDelayMS": 50,
        "minPackSizeToSend": 1,
        "checkConnectorsConfigurationInSeconds": 60,
        "handleDeviceRenaming": False,
        "qos": 1,
        "reportStrategy": {"type": "ON_RECEIVED"},
        "checkingDeviceActivity": {"checkDeviceInactivity": False},
    }
    storage = {"type": "memory", "read_records_count": 100, "max_records_count": 10_000}
    return {"thingsboard": thingsboard, "storage": storage, "grpc": {"enabled": False}, "connectors": []}


def test_thingsboards_own_gateway_connects_reports_and_answers(server: ThingsBoard, tmp_path: Path) -> None:
    """It speaks MQTT 5, asks for the session's limits, and subscribes to the gateway's topics."""
    device = server.add_device("tb-gateway", token="T1")
    device.make_gateway()
    configuration = tmp_path / "config"
    configuration.mkdir()
    (configuration / "tb_gateway.json").write_text(json.dumps(gateway_configuration(server)))
    (configuration / "logs.json").write_text(json.dumps({"version": 1, "root": {"level": "INFO"}}))
    command: list[str | Path] = [CLIENTS / "bin" / "thingsboard-gateway"]
    with running(command, tmp_path, TB_GW_CONFIG_DIR=f"{configuration}/"):
        device.wait_for(lambda it: it.connected, PATIENCE_S, "a session")
        device.wait_for(lambda it: "cpuCount" in it.client_attributes, PATIENCE_S, "its attributes")
        wait_until(answers(device.rpc), PATIENCE_S, "an answer to gateway_ping")
        device.wait_for(lambda it: "machineStats" in it.points_per_key(), PATIENCE_S, "its telemetry")
    assert device.sessions[0].version == 5 and device.sessions[0].refused_filters == []
    assert {method for _, method, _ in device.client_rpcs} <= {"getSessionLimits"}


def answers(call: Callable[..., Any]) -> Callable[[], bool]:
    return lambda: bool(call("gateway_ping", {}).response == {"code": 200, "resp": "pong"})
