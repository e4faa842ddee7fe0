"""The `teg` command as an operator runs it: a real process on a real data directory."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import PROJECT, ControllerInbox, RunningGateway, message

TEG = Path(sys.executable).parent / "teg"


def teg(gateway: RunningGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TEG, *arguments], env=gateway.environment, cwd=PROJECT, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture
def gateway(tmp_path: Path) -> RunningGateway:
    return RunningGateway(tmp_path, "127.0.0.1", 1, "T1")


def test_help_names_every_command(gateway: RunningGateway) -> None:
    shown = teg(gateway, "--help")
    assert shown.returncode == 0
    for command in ("status", "dead-letters", "check"):
        assert command in shown.stdout


def test_status_tells_running_from_stopped_and_counts(gateway: RunningGateway, tmp_path: Path) -> None:
    with ThingsBoard() as server:
        device = server.add_device("pi", token="T1")
        gateway.environment["TB_PORT"] = str(server.port)
        with closing(ControllerInbox(gateway.inbox_path)) as inbox:
            inbox.insert_many([message(1), message(2), "no json"])
        with gateway:
            device.wait_for(lambda d: d.distinct >= 2, 20)
            report = json.loads(teg(gateway, "status", "--json").stdout)
            assert report["running"] is True
            assert report["accepted"] == 2
            assert report["dead_letters"] == 1
            assert gateway.stop() == 0
        stopped = teg(gateway, "status")
        assert "NOT RUNNING" in stopped.stdout
        assert "not JSON" in teg(gateway, "dead-letters").stdout


def test_check_names_every_wrong_setting(gateway: RunningGateway) -> None:
    gateway.environment |= {"TB_PORT": "http", "TEG_CONTROLLER_RUNTIME": "podman"}
    shown = teg(gateway, "check")
    assert shown.returncode == 1
    assert "TB_PORT" in shown.stderr
    assert "TEG_CONTROLLER_RUNTIME" in shown.stderr


def test_status_before_the_first_run_says_so(gateway: RunningGateway) -> None:
    shown = teg(gateway, "status")
    assert shown.returncode == 1
    assert "has not run" in shown.stderr
