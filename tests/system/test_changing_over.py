"""docs/changing-over.md played through: each kind of the reference's installations, by the commands that stand there;
the preflight, what arrives, and the way back."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.planted_faults.site import TEG
from tests.support.reference_pi import BACK, KINDS, Pi, fingerprints
from tests.support.running import RunningGateway, measurements, wait_until


@pytest.fixture
def pi(tmp_path: Path) -> Iterator[Pi]:
    with ThingsBoard() as server:
        yield Pi(tmp_path, server)


def changed_over(pi: Pi, directory: Path, kind: str) -> RunningGateway:
    KINDS[kind](pi)
    with pi.settings.open("a") as settings:
        settings.write(f"TB_HOST={pi.server.host}\nTB_PORT={pi.server.port}\nTB_TLS=off\nTEG_CONTROLLER_RUNTIME=none\n")
    before = fingerprints(pi.data)
    shown = subprocess.run(
        [TEG, "migrate", "--dry-run"], env=pi.environment(), cwd=directory, capture_output=True, text=True, timeout=60
    )
    assert shown.returncode in (0, 1), shown.stdout + shown.stderr
    assert f"✓ database: {pi.data}/gateway_archive.db" in shown.stdout
    assert fingerprints(pi.data) == before, "the preflight changes nothing"
    gateway = RunningGateway(directory / "gateway", pi.server.host, pi.server.port, "")
    gateway.environment = pi.environment()
    gateway.data_path = pi.home / "data-private"
    return gateway


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_installation_changes_over_and_loses_nothing(pi: Pi, tmp_path: Path, kind: str) -> None:
    archive = fingerprints(pi.data)["gateway_archive.db"]
    with changed_over(pi, tmp_path, kind) as gateway:
        expected = measurements(2, 4)
        pi.device.wait_for(lambda device: expected.keys() <= device.telemetry().keys(), 60, "what was not sent yet")
        wait_until(lambda: gateway.archived() == 4, 30, "the history, too")
        assert gateway.stop() == 0
    assert ("n", next(iter(measurements(1, 1)))[1]) not in pi.device.telemetry(), (
        "what the old one had sent is not again"
    )
    assert fingerprints(pi.data)["gateway_archive.db"] == archive, "the old databases are only read"


def test_the_way_back_is_the_documented_copy(pi: Pi, tmp_path: Path) -> None:
    with changed_over(pi, tmp_path, "start script") as gateway:
        pi.device.wait_connected(60)
        wait_until(lambda: not (pi.data / "tb_access_token").exists(), 30, "the token has moved")
        assert gateway.stop() == 0
    pi.type(BACK)
    assert (pi.data / "tb_access_token").read_text() == "T1"
    assert (pi.data / "last_launched_controller_version.txt").read_text() == "v1.2"
    assert {"gateway_archive.db", "communication_queue.db", "gateway_logs_buffer.db"} <= fingerprints(pi.data).keys()
