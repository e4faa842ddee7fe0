"""What an operator sees first: each planted fault, and the first line of `teg check` or `teg status` about it.

The table in docs/troubleshooting.md comes from here; a real `teg`, real servers, real files.
"""

import json
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.planted_faults.every import FAULTS, Site, site_in
from tests.support.planted_faults.server import closed_port, unknown_host, wrong_token
from tests.support.planted_faults.site import TEG
from tests.support.running import wait_until


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_in(tmp_path) as site:
        yield site


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_the_first_line_of_check_names_the_fault(name: str) -> None:
    plant, first_line = FAULTS[name]
    directory = Path(tempfile.mkdtemp(prefix="teg-fault-"))
    directory.chmod(0o755)
    try:
        with site_in(directory) as site:
            plant(site)
            shown = site.teg("check")
    finally:
        shutil.rmtree(directory)
    assert re.match(first_line, shown.stdout), f"{shown.stdout[:1000]}\n{shown.stderr}"
    assert shown.returncode == {"✗": 2, "!": 1}[shown.stdout[0]]


def test_what_surrounds_a_token_is_no_fault(site: Site) -> None:
    site.gateway.token_path.write_text("  T1 \r\n")
    assert "✓ access token: the server takes it" in site.teg("check").stdout


def test_two_gateways_on_one_data_directory(site: Site) -> None:
    site.start()
    site.device.wait_connected(30)
    second = site.teg("run")
    assert second.returncode == 1
    assert f"another gateway already works on {site.gateway.data_path}" in second.stderr
    assert "✓ gateway: running" in site.teg("check").stdout


def test_provisioning_that_fails_is_told_by_the_running_gateway(site: Site) -> None:
    site.gateway.token_path.unlink()
    for name in ("KEY", "SECRET"):
        site.environment[f"THINGSBOARD_PROVISION_DEVICE_{name}"] = "unknown"
    site.start()
    wait_until(lambda: "provision" in first_line(site), 60, "status tells")
    assert site.teg("check").stdout.startswith("✗ access token: ")


def test_a_sound_site_has_no_problem_and_many_lines(site: Site) -> None:
    shown = site.teg("check")
    assert "✗" not in shown.stdout
    assert len(shown.stdout.splitlines()) >= 30
    assert shown.returncode == 1, "that no gateway runs is worth a word"


def test_every_line_that_is_not_fine_has_a_remedy(site: Site) -> None:
    unknown_host(site)
    found = json.loads(site.teg("check", "--json").stdout)
    assert all(each["remedy"] for each in found if each["level"] in ("problem", "warning"))
    assert found[0]["level"] == "problem"


def test_check_beside_a_running_gateway_leaves_its_session_alone(site: Site) -> None:
    site.start()
    site.device.wait_connected(30)
    shown = site.teg("check")
    assert "✓ access token: the running gateway is connected with it" in shown.stdout
    assert "✓ gateway: running" in shown.stdout
    assert len(site.device.sessions) == 1


# --- teg status --------------------------------------------------------------------------------------------


def first_line(site: Site) -> str:
    return (site.teg("status").stdout.splitlines() or [""])[0]


def test_status_of_a_sound_gateway(site: Site) -> None:
    site.start()
    site.device.wait_connected(30)
    shown = site.teg("status")
    assert shown.returncode == 0, shown.stdout
    assert shown.stdout.startswith("gateway      running")
    assert "server       connected since" in shown.stdout
    assert site.teg("status", "--alive").returncode == 0


def test_status_of_none(site: Site) -> None:
    assert first_line(site).startswith("trouble      the gateway does not run; systemctl start teg")
    assert site.teg("status").returncode == 2
    assert site.teg("status", "--alive").returncode == 1


def test_status_of_a_gateway_that_hangs(site: Site) -> None:
    site.start()
    site.device.wait_connected(30)
    assert site.gateway.process is not None
    site.gateway.process.send_signal(signal.SIGSTOP)
    shown = site.teg("status")
    site.gateway.process.send_signal(signal.SIGCONT)
    assert shown.stdout.startswith("trouble      the gateway does not answer")
    assert shown.returncode == 2


def test_status_without_a_server(site: Site) -> None:
    closed_port(site)
    site.start()
    wait_until(lambda: "no connection to the server" in first_line(site), 30, "the trouble is shown")
    shown = site.teg("status")
    assert "Connection refused" in shown.stdout.splitlines()[0]
    assert "NOT CONNECTED" in shown.stdout
    assert "next try" in shown.stdout
    assert shown.returncode == 1
    assert site.teg("status", "--alive").returncode == 0, "no network is no reason to restart anything"


def test_status_with_a_wrong_token(site: Site) -> None:
    wrong_token(site)
    site.start()
    wait_until(lambda: "does not know this access token" in first_line(site), 30, "the trouble is shown")


def test_status_of_a_cloned_card(site: Site) -> None:
    """The server closes one session for the other, again and again."""
    site.start()

    def shown_after_a_kick() -> bool:
        if site.device.connected:
            site.device.kick()
        return "cloned SD card" in first_line(site)

    wait_until(shown_after_a_kick, 120, "the trouble is shown")
    assert re.match(r"✗ access token: .*\(a cloned SD card\?\)", site.teg("check").stdout.splitlines()[0])


def test_status_of_a_dead_controller(site: Site) -> None:
    site.environment |= {"TEG_CONTROLLER_RUNTIME": "process", "TEG_CONTROLLER_COMMAND": "false"}
    site.start()
    wait_until(lambda: "the controller does not run: waiting" in first_line(site), 60, "the trouble is shown")
    assert "last ended" in site.teg("status").stdout


def test_status_tells_the_last_words_of_a_controller(site: Site) -> None:
    program = site.directory / "controller.sh"
    program.write_text("echo starting\nprintf 'no sensor at 0x62\\033[2J\\n' >&2\nexit 7\n")
    site.environment |= {"TEG_CONTROLLER_RUNTIME": "process", "TEG_CONTROLLER_COMMAND": f"sh {program}"}
    site.environment["TEG_DEFAULT_CONTROLLER_VERSION"] = "v1"
    site.start()
    wait_until(lambda: "last words   no sensor at 0x62" in site.teg("status").stdout, 90, "they are shown")
    assert "\x1b" not in site.teg("status").stdout


def test_run_is_the_gateway_with_the_references_arguments(site: Site) -> None:
    environment = {**site.gateway.environment, "TB_HOST": "wrong.invalid", "TB_PORT": "1"}
    arguments = ["run", "--tb-host", "localhost", "--tb-port", str(site.server.port)]
    process = subprocess.Popen([TEG, *arguments], env=environment, cwd=site.directory, stderr=subprocess.DEVNULL)
    try:
        site.device.wait_connected(30)
        assert site.device.rpc("exit").response == {"message": "OK - Exiting"}
        assert process.wait(30) == 15
    finally:
        process.kill()
        process.wait()
