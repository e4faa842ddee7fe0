"""`teg sim fleet`: many gateways to a process, before a stand-in of its own and before one that is named."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from teg.fleet.crew import MEMBERS_A_PROCESS
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.running import RunningGateway, wait_until

TEG = str(Path(sys.executable).parent / "teg")
SHORT = ("--outage-s", "3", "--every-s", "0.5", "--calm-s", "2", "--patience-s", "60", "--json")


def fleet(*options: str) -> Any:
    command = [TEG, "sim", "fleet", *SHORT, *options]
    environment = {**os.environ, "TEG_SERVER_PASSWORD": "tenant"}
    done = subprocess.run(command, capture_output=True, timeout=200, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return orjson.loads(done.stdout)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThingsBoard]:
    with ThingsBoard(rest_port=0, tls=ServerTls.create(tmp_path)) as server:
        yield server


@pytest.mark.slow
def test_nothing_is_missing_after_an_outage_and_cut_connections() -> None:
    gateways = MEMBERS_A_PROCESS + 2  # more than one process
    figures = fleet("--gateways", str(gateways), "--backlog", "40", "--cut-every", "2")
    assert figures["missing"] == 0
    assert figures["recorded"] >= gateways * 40
    assert figures["sent"] >= figures["recorded"]
    (outage,) = figures["outages"]
    assert 1 <= outage["busiest_second"] <= gateways
    assert outage["all_back_s"] <= outage["all_drained_s"]
    assert figures["messages_a_day"] > 0
    assert figures["bytes_up_a_day"] > figures["messages_a_day"]


@pytest.mark.slow
def test_a_server_that_is_named_is_left_as_it_was(server: ThingsBoard, tmp_path: Path) -> None:
    server.add_device("pi-07")
    place = f"{server.host}:{server.port}"
    options = ("--url", server.rest_url, "--mqtt", place, "--tls", "--ca-cert", str(tmp_path / "ca.pem"))
    figures = fleet("--gateways", "4", "--backlog", "20", *options)
    assert figures["missing"] == 0
    assert [device.name for device in server.devices] == ["pi-07"]


@pytest.mark.slow
def test_a_server_that_acknowledges_and_does_not_store_is_found_out(server: ThingsBoard, tmp_path: Path) -> None:
    """Acknowledged is not stored: the account looks into the database."""
    server.faults.store_delay_s = 600.0
    place = f"{server.host}:{server.port}"
    options = ("--url", server.rest_url, "--mqtt", place, "--tls", "--ca-cert", str(tmp_path / "ca.pem"))
    command = [TEG, "sim", "fleet", *SHORT, "--gateways", "2", "--backlog", "5", "--patience-s", "5", *options]
    environment = {**os.environ, "TEG_SERVER_PASSWORD": "tenant"}
    done = subprocess.run(command, capture_output=True, timeout=200, check=False, env=environment)
    assert done.returncode == 1
    assert orjson.loads(done.stdout)["missing"] > 0


def test_the_table_of_a_tenants_gateways(tmp_path: Path) -> None:
    """As the server knows them; other devices are none of ours."""
    with ThingsBoard(rest_port=0) as server:
        server.add_device("a-lamp")
        device = server.add_device("pi-07", token="TOKEN-1")
        command = [TEG, "fleet", "--url", server.rest_url, "--user", "tenant@thingsboard.org"]
        environment = {**os.environ, "TEG_SERVER_PASSWORD": "tenant"}
        with RunningGateway(tmp_path, server.host, server.port, "TOKEN-1"):
            wait_until(lambda: "sys_info" in device.client_attributes, 30, "the gateway tells of itself")
            done = subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "pi-07" in done.stdout
        assert "a-lamp" not in done.stdout
        assert done.stdout.endswith("1 gateways, 0 not connected, 0 with something wrong\n")
