"""The `teg` command as an operator runs it: a real process on a real data directory."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from teg.console.main import COMMANDS
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
    for command in COMMANDS:
        assert f"  {command}  " in shown.stdout
        assert teg(gateway, command, "--help").returncode == 0


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
            assert report["state"] == "yes"
            assert report["accepted"] == 2
            assert report["dead_letters"] == 1
            assert gateway.stop() == 0
        stopped = teg(gateway, "status")
        assert "NOT RUNNING" in stopped.stdout
        assert "not JSON" in teg(gateway, "dead-letters").stdout
        assert teg(gateway, "dead-letters", "--show", "1").stdout.endswith("no json\n")
        assert teg(gateway, "dead-letters", "--show", "9").returncode == 1


def test_check_names_every_wrong_setting(gateway: RunningGateway) -> None:
    gateway.environment |= {"TB_PORT": "http", "TEG_CONTROLLER_RUNTIME": "podman"}
    shown = teg(gateway, "check")
    assert shown.returncode == 2
    assert "✗ settings: TB_PORT" in shown.stdout
    assert "✗ settings: TEG_CONTROLLER_RUNTIME" in shown.stdout


def test_status_before_the_first_run_says_so(gateway: RunningGateway) -> None:
    shown = teg(gateway, "status")
    assert shown.returncode == 2
    assert "the gateway does not run" in shown.stdout
    letters = teg(gateway, "dead-letters")
    assert letters.returncode == 1
    assert "has not run" in letters.stderr


def test_status_loads_no_library_of_dockers() -> None:
    """It is what a container's health check calls twice a minute on a small machine."""
    code = "import sys, teg.console.status; print(sorted({'docker', 'requests', 'paho', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
