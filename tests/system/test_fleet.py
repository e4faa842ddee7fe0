"""`teg sim fleet`: many gateways to a process, before a stand-in of its own and before one that is named."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls

TEG = Path(sys.executable).parent / "teg"
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


def test_nothing_is_missing_after_an_outage_and_cut_connections() -> None:
    figures = fleet("--gateways", "9", "--backlog", "200", "--cut-every", "2")
    assert figures["missing"] == 0
    assert figures["recorded"] >= 9 * 200
    assert figures["sent"] >= figures["recorded"]
    (outage,) = figures["outages"]
    assert 1 <= outage["busiest_second"] <= 9
    assert outage["all_back_s"] <= outage["all_drained_s"]
    assert figures["messages_a_day"] > 0
    assert figures["bytes_up_a_day"] > figures["messages_a_day"]


def test_a_server_that_is_named_is_left_as_it_was(server: ThingsBoard, tmp_path: Path) -> None:
    server.add_device("pi-07")
    place = f"{server.host}:{server.port}"
    options = ("--url", server.rest_url, "--mqtt", place, "--tls", "--ca-cert", str(tmp_path / "ca.pem"))
    figures = fleet("--gateways", "4", "--backlog", "20", *options)
    assert figures["missing"] == 0
    assert [device.name for device in server.devices] == ["pi-07"]


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
