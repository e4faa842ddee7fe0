"""The conformance tests notice a server that is wrong, and can be pointed at any server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from teg.simulator.thingsboard.deviations import DEVIATIONS

ROOT = Path(__file__).resolve().parents[3]
SUITE = ROOT / "tests" / "conformance"
GROUPS = sorted(path.stem.removeprefix("test_") for path in SUITE.glob("test_*.py"))
DOCUMENT = (ROOT / "docs" / "stand-in.md").read_text()


def conformance(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments]
    merged = {**os.environ, "TB_TEST_PATIENCE_S": "3", **environment}
    return subprocess.run(command, cwd=ROOT, env=merged, capture_output=True, text=True, timeout=900)


def outcomes(group: str, results: Path, **environment: str) -> dict[str, bool]:
    """Test of the group -> whether it passed."""
    done = conformance(f"tests/conformance/test_{group}.py", "--junitxml", results, **environment)
    assert done.returncode in (0, 1), done.stdout
    cases = ElementTree.parse(results).iter("testcase")
    return {str(case.get("name")): case.find("failure") is None and case.find("error") is None for case in cases}


def of_group(group: str) -> list[str]:
    return [name for name, deviation in DEVIATIONS.items() if deviation.group == group]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_each_group_notices_a_wrong_server(group: str) -> None:
    done = conformance(f"tests/conformance/test_{group}.py", "-x", STAND_IN_DEVIATION=of_group(group)[0])
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group", GROUPS)
def test_each_test_notices_a_wrong_server(group: str, tmp_path: Path) -> None:
    """One of its group's deviations makes it fail."""
    right = outcomes(group, tmp_path / "right", TB_TEST_PATIENCE_S="30")
    assert right and all(right.values())
    patience = {"TB_TEST_PATIENCE_S": "5"}  # what fails has to fail by the deviation, not by a busy machine
    wrong = [outcomes(group, tmp_path / "wrong", STAND_IN_DEVIATION=name, **patience) for name in of_group(group)]
    passes_always = [test for test in right if all(seen.get(test, True) for seen in wrong)]
    assert not passes_always, f"these pass whatever the server does: {passes_always}"


def test_each_group_has_a_deviation_and_each_is_documented() -> None:
    assert {deviation.group for deviation in DEVIATIONS.values()} == set(GROUPS)
    missing = [d.name for d in DEVIATIONS.values() if f"| {d.group} | {d.what} |" not in DOCUMENT]
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize(("told", "differing"), [("", 0), ("4.2.1.1", 1)])
def test_a_named_server(told: str, differing: int, tmp_path: Path) -> None:
    """With a certificate that nobody knows. Told the wrong version, the tests say what differs; what this server has
    nothing for is said; everything made is deleted again."""
    server = [sys.executable, "-m", "teg.simulator.thingsboard", "--port", "0", "--rest-port", "0", "--interval", "0"]
    command = [*server, "--server-version", "4.2.1", "--tls-dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        place = json.loads(process.stdout.readline())["listening"]
        names = {"TB_TEST_URL": place["rest_url"], "TB_TEST_MQTT": f"mqtts://127.0.0.1:{place['port']}"}
        names |= {"TB_TEST_CA": place["ca_file"], "TB_TEST_VERSION": told}
        names |= {"TB_TEST_USER": "tenant@thingsboard.org", "TB_TEST_PASSWORD": "tenant"}
        files = [f"tests/conformance/test_{group}.py" for group in ("packages", "queue", "closes")]
        done = conformance(*files, "-k", "url or crash or too_large", **names)
        process.terminate()
        account = json.loads(process.stdout.read())
    assert done.returncode == (1 if differing else 0), done.stdout
    assert f"{differing} differ, " in done.stdout
    assert "1 not checked" in done.stdout and "TB_TEST_CRASH" in done.stdout
    assert account["devices"] == {}
