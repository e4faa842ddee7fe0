"""Every command that README and docs show is executed: here on a site, or by the test that is named; or it cannot be
executed on a test machine, for the reason that is given. A new one that is none of these fails."""

import fnmatch
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.documented_commands import ROOT, commands
from tests.support.running import ControllerInbox, RunningGateway, message, wait_until

TEG = Path(sys.executable).parent / "teg"
STICK = "/media/stick"

#: Executed below, in this order, beside a running gateway: what is typed when it asks, the exit codes that are right.
HERE: dict[str, tuple[str, set[int]]] = {
    "teg status": ("", {0}),
    "teg check": ("", {0, 1}),
    "teg why 17": ("", {0}),
    "teg dead-letters": ("", {0}),
    "teg send hello=1": ("", {0}),
    "teg migrate --dry-run": ("", {0, 1}),
    f"teg backup {STICK}/teg.backup": ("", {0}),
    f"teg archive export {STICK}/pi-07.teg.gz": ("", {0}),
    f"teg archive export --undelivered --since 2026-01-31 {STICK}/pi-07.teg.gz": ("", {0}),
    f"teg archive import {STICK}/pi-07.teg.gz": ("DESK\ny\n", {0}),
}

#: Executed by another test, as a person would type it or as the same call.
ELSEWHERE = {
    "make demo": "tests/system/test_demo.py::test_the_status_page_is_open_meanwhile",
    "./install": "tests/system/test_service.py::test_install_from_an_unpacked_release_and_uninstall",
    "apt install ./teg-gateway_*_all.deb": "tests/system/test_service.py::test_the_package_is_installed_runs_upgrades_"
    "goes_back_and_is_removed",
    "apt remove teg-gateway": "tests/system/test_service.py::test_the_package_is_installed_runs_upgrades_"
    "goes_back_and_is_removed",
    "websockify 127.0.0.1:9001 127.0.0.1:1883": "tests/system/test_transports.py::test_records_calls_and_"
    "a_broken_connection",
    "teg init": "tests/system/test_console_init.py::test_a_token_is_tried_and_written",
    "teg uninstall": "tests/system/test_service.py::test_install_from_an_unpacked_release_and_uninstall",
    f"teg restore {STICK}/teg.backup": "tests/system/test_console_tools.py::test_a_backup_of_a_running_gateway_"
    "makes_another_card_this_device",
    "teg sim desk -- python3 main.py": "tests/system/test_console_sim.py::test_the_guides_first_controller_is_seen_"
    "at_work",
    "teg sim controller --inbox *": "tests/system/test_console_sim.py::test_server_and_controller_by_themselves",
    "teg torture --seconds *": "tests/faults/test_torture_command.py::test_",
    "teg fleet --url *": "tests/system/test_fleet.py::test_the_table_of_a_tenants_gateways",
    "teg sim fleet *": "tests/system/test_fleet.py::test_nothing_is_missing_after_an_outage_and_cut_connections",
    "teg server *": "tests/unit/console/test_server_side.py::test_",
    "ssh-keygen *": "tests/unit/ota/test_signatures.py::test_",
    'echo "release@example.com *': "tests/unit/ota/test_signatures.py::test_",
    "DIGEST=*": "tests/unit/ota/test_signatures.py::test_",
    "printf 'teg-ota 1*": "tests/unit/ota/test_signatures.py::test_",
    "TB_TEST_URL=* make conformance": "tests/conformance/conftest.py::",
    "sed -nE *": "tests/system/test_changing_over.py::test_each_kind_of_installation_changes_over_and_loses_nothing",
    "docker inspect *": "tests/system/test_changing_over.py::test_each_kind_of_installation_changes_over_and_"
    "loses_nothing",
    "docker compose exec *": "tests/system/test_changing_over.py::test_each_kind_of_installation_changes_over_and_"
    "loses_nothing",
    "cp -p /home/pi/data-private/*": "tests/system/test_changing_over.py::test_the_way_back_is_the_documented_copy",
}

CANNOT = {
    "make test": "it is what runs this test",
    "systemctl start teg": "no systemd where tests run; what the unit runs is run in test_service.py",
    "systemctl stop teg": "no systemd where tests run",
    "install -m 600 -o teg -g teg /dev/stdin *": "typed by hand; test_service.py places the same file",
    "remapped=*": "changes the machine's Docker; test_remapped_engine.py gives the directories the same way",
    "cd /var/lib/teg && mkdir *": "see above",
    "TEG_CONSOLE_PASSWORD=*": "a line of the settings file, not a command",
    "ssh -L *": "needs a second machine",
}
#: What a block shows of a command's output.
OUTPUT = ("account: ", "gateway: ", "fsync: ", "verdict: ")


def kind(text: str) -> str | None:
    for table in (HERE, ELSEWHERE, CANNOT):
        if found := next((pattern for pattern in table if fnmatch.fnmatchcase(text, pattern)), None):
            return found
    return None


def test_every_command_is_executed_or_has_its_reason() -> None:
    shown = [command for command in commands() if not command.text.startswith(OUTPUT)]
    assert len(shown) >= 35
    unknown = [command for command in shown if kind(command.text) is None]
    assert not unknown, "execute it in HERE, name its test in ELSEWHERE, or say in CANNOT why not"
    used = {kind(command.text) for command in shown}
    assert not {*HERE, *ELSEWHERE, *CANNOT} - used, "no page shows these any more"


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_the_named_test_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}" in (ROOT / file).read_text() or not name


@pytest.fixture
def device(tmp_path: Path) -> Iterator[tuple[RunningGateway, ThingsBoard]]:
    with ThingsBoard() as server:
        server.add_device("pi-07", token="T1")
        server.add_device("desk", token="DESK").make_gateway()
        gateway = RunningGateway(tmp_path / "site", server.host, server.port, "T1", THINGSBOARD_DEVICE_NAME="pi-07")
        with closing(ControllerInbox(gateway.inbox_path)) as inbox, gateway:
            inbox.insert_many(message(number) for number in range(1, 31))
            inbox.insert("no JSON")
            server.device("pi-07").wait_for(lambda device: device.latest("n") == 30, 60, "the records")
            wait_until(lambda: inbox.count() == 0, 30, "the inbox is empty")
            yield gateway, server


def test_what_can_be_executed_here_works_as_it_is_written(
    device: tuple[RunningGateway, ThingsBoard], tmp_path: Path
) -> None:
    gateway, server = device
    (tmp_path / "stick").mkdir()
    environment = {**gateway.environment, "HOME": str(tmp_path)}
    environment["PATH"] = f"{TEG.parent}{os.pathsep}{environment['PATH']}"
    for text, (typed, codes) in HERE.items():
        command = shlex.split(text.replace(STICK, str(tmp_path / "stick")))
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, input=typed, capture_output=True, text=True, timeout=120
        )
        assert done.returncode in codes, f"{text}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr, text
    server.device("pi-07").wait_for(lambda device: device.latest("hello") == 1, 30, "what was sent by hand")
