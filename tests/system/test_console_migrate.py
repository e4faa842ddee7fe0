"""`teg migrate --dry-run` on a device that the reference gateway leaves behind: everything named, nothing touched."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import CLOSED_PORT
from tests.support.sick_engine import sick_engine

TEG = Path(sys.executable).parent / "teg"


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """One directory for all, as the reference has it."""
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    for name in ("gateway_archive.db", "communication_queue.db", "tb_access_token"):
        (data / name).write_text("x" * 5000)
    return data


def migrate(data: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "TB_HOST": "127.0.0.1",
        "TB_PORT": str(CLOSED_PORT),
        "TEG_DATA_PATH": str(data),
        "TEG_CONTROLLER_DATA_PATH": str(data),
        "THINGSBOARD_ACCESS_TOKEN": str(data / "tb_access_token"),
        "TEG_CONTROLLER_RUNTIME": "none",
        **variables,
    }
    return subprocess.run(
        [TEG, "migrate", "--dry-run"], env=environment, cwd=data.parent, capture_output=True, text=True, timeout=60
    )


def test_everything_is_named_and_nothing_is_touched(device: Path) -> None:
    before = sorted(path.relative_to(device.parent) for path in device.parent.rglob("*"))
    shown = migrate(device)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert f"✓ database: {device}/gateway_archive.db (5.0 kB)" in shown.stdout
    assert f"– database: there is no {device}/gateway_logs_buffer.db" in shown.stdout
    assert f"✓ moves: {device}/tb_access_token → {device}-private/tb_access_token" in shown.stdout
    assert "! remote files: are written in" in shown.stdout
    assert "! run_command: is off here" in shown.stdout
    assert sorted(path.relative_to(device.parent) for path in device.parent.rglob("*")) == before


def test_what_was_set_right_is_fine(device: Path) -> None:
    shown = migrate(device, TEG_RPC_RUN_COMMAND="on", TEG_FILE_ROOTS=f"{device}:/etc/cron.d")
    assert shown.returncode == 0, shown.stdout
    assert f"✓ remote files: are written in {device}, /etc/cron.d" in shown.stdout


def test_a_running_old_gateway_and_its_controllers_rights_are_told(device: Path) -> None:
    with sick_engine() as engine:
        engine.moods["/containers/thingsboard-edge-gateway-runner/json"] = {"State": {"Running": True}}
        engine.moods["/containers/teg_controller/json"] = {"State": {}, "HostConfig": {"Privileged": True}}
        runtime = {"TEG_CONTROLLER_RUNTIME": "docker", "DOCKER_HOST": f"unix://{engine.server_address!s}"}
        shown = migrate(device, **runtime)
        taken = migrate(device, **runtime, TEG_CONTROLLER_PRIVILEGED="off")
    assert shown.returncode == 2
    assert shown.stdout.startswith("✗ old gateway: the container thingsboard-edge-gateway-runner runs")
    assert "! controller: has all rights and keeps them" in shown.stdout
    assert "! controller: has all rights now and will have few" in taken.stdout


def test_without_dry_run_nothing_is_promised(device: Path) -> None:
    shown = subprocess.run([TEG, "migrate"], cwd=device, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 2
    assert "--dry-run" in shown.stderr
