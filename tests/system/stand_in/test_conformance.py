"""The conformance tests notice a server that is wrong, and can be pointed at any server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.conformance import SABOTAGES

ROOT = Path(__file__).resolve().parents[3]


def conformance(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments]
    merged = {**os.environ, "TB_TEST_PATIENCE_S": "3", **environment}
    return subprocess.run(command, cwd=ROOT, env=merged, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("group", [name for name in SABOTAGES if name != "none"])
def test_each_group_notices_a_wrong_server(group: str) -> None:
    done = conformance(f"tests/conformance/test_{group}.py", "-x", STAND_IN_SABOTAGE=group)
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout


def test_each_group_has_its_sabotage() -> None:
    groups = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "conformance").glob("test_*.py")}
    assert groups == set(SABOTAGES) - {"none"}


@pytest.mark.parametrize(("told", "differing"), [("4.2.1", 0), ("4.2.1.1", 1)])
def test_a_named_server_of_a_named_version(told: str, differing: int) -> None:
    """Told the wrong version, the tests say what differs."""
    server = [sys.executable, "-m", "teg.simulator.thingsboard", "--port", "0", "--rest-port", "0", "--interval", "0"]
    command = [*server, "--server-version", "4.2.1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        place = json.loads(process.stdout.readline())["listening"]
        names = {"TB_TEST_URL": place["rest_url"], "TB_TEST_MQTT": f"127.0.0.1:{place['port']}"}
        login = {"TB_TEST_USER": "tenant@thingsboard.org", "TB_TEST_PASSWORD": "tenant"}
        done = conformance("tests/conformance/test_packages.py", **names, **login, TB_TEST_VERSION=told)
        process.terminate()
        account = json.loads(process.stdout.read())
    assert done.returncode == (1 if differing else 0), done.stdout
    assert f"{differing} differ" in done.stdout or f"{differing} failed" in done.stdout
    assert account["devices"] == {}  # everything made was deleted again
