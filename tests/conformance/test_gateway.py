"""The gateway itself at a server that is known by address and tenant only: what it promises, seen through REST."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from teg.simulator.demo.places import Places
from teg.simulator.demo.versions import BAD, FIRST, GOOD, make_versions
from tests.support.conformance import PATIENCE_S, Made, Tenant, eventually, unique_name
from tests.support.conformance_report import Report
from tests.support.legacy import START_MS, Reference
from tests.support.relay import Relay
from tests.support.running import PROJECT, ControllerInbox, RunningGateway, message

RECORDS = 10_000


def running(path: Path, tenant: Tenant, device: Made | None, **environment: str) -> RunningGateway:
    """Not started yet; without a device it has to provision itself."""
    target = tenant.target
    tls = {"TB_TLS": "on" if target.tls else "off", "THINGSBOARD_CA_CERT": target.ca_file or ""}
    return RunningGateway(path, target.host, target.port, device.token if device else "", **{**tls, **environment})


@pytest.fixture
def device(tenant: Tenant) -> Made:
    return tenant.device()


def numbers(tenant: Tenant, device: Made, start_ms: int = START_MS) -> list[int]:
    """The values of `n` as they are stored, in the order of time."""
    return tenant.series(device, "n", start_ms, start_ms + 10 * RECORDS)


def arrives(tenant: Tenant, device: Made, expected: list[int]) -> list[int]:
    """What is stored in the end; waits as long as something still arrives."""
    last, quiet_since_s = -1, time.monotonic()
    while (stored := numbers(tenant, device)) != expected and time.monotonic() - quiet_since_s < PATIENCE_S:
        if len(stored) != last:
            last, quiet_since_s = len(stored), time.monotonic()
        time.sleep(0.2)
    return stored


def client_attribute(tenant: Tenant, device: Made, key: str) -> Any:
    found = tenant.rest.get(f"{tenant.telemetry_path(device)}/values/attributes/CLIENT_SCOPE", keys=key).json()
    return found[0]["value"] if found else None


def test_an_account_of_10_000_records_with_an_outage(
    tenant: Tenant, device: Made, report: Report, tmp_path: Path
) -> None:
    with Relay(tenant.target.host, tenant.target.port, tenant.target.context()) as relay:
        gateway = RunningGateway(tmp_path, "127.0.0.1", relay.port, device.token)
        with closing(ControllerInbox(gateway.inbox_path)) as inbox, gateway:
            half = RECORDS // 2
            inbox.insert_many(message(number, START_MS) for number in range(half))
            eventually(lambda: numbers(tenant, device) or None, "the first of them")
            relay.cut()
            inbox.insert_many(message(number, START_MS) for number in range(half, RECORDS))
            gateway.wait_log("no connection to the server")
            relay.mend()
            stored = arrives(tenant, device, list(range(RECORDS)))
            report.check("10,000 records, an outage in their midst: stored", RECORDS, len(stored))
            report.check("each once, with its own time stamp", True, stored == list(range(RECORDS)))
            assert gateway.stop() == 0


def test_calls_are_answered(tenant: Tenant, device: Made, report: Report, tmp_path: Path) -> None:
    with running(tmp_path, tenant, device) as gateway:
        gateway.wait_log("connected to ")
        path = f"/api/rpc/twoway/{device.id}"
        pong = tenant.rest.post(path, {"method": "ping", "params": {}, "timeout": 20_000}).json()
        report.check("ping", {"message": "Pong"}, pong)
        unknown = tenant.rest.post(path, {"method": "sing", "params": {}, "timeout": 20_000}).json()
        report.check("an unknown method is answered", True, "sing" in json.dumps(unknown))


def test_a_file_is_written_and_reported(tenant: Tenant, device: Made, report: Report, tmp_path: Path) -> None:
    with running(tmp_path, tenant, device) as gateway:
        gateway.wait_log("connected to ")
        definition = {"note": {"path": "$DATA_PATH/note.txt"}}
        tenant.share(device, {"FILES": definition, "FILE_CONTENT_note": "written by the tenant"})
        note = gateway.controller_path / "note.txt"
        eventually(lambda: (note.exists() and note.read_text() == "written by the tenant") or None, "the file")
        hashes = eventually(lambda: (client_attribute(tenant, device, "FILE_HASHES") or {}).get("note"), "its hash")
        report.check("a file's hash is reported", True, bool(hashes))


@pytest.fixture
def versions(tmp_path: Path) -> Iterator[Places]:
    """A controller's repository with a good update and a bad one."""
    directory = tmp_path / "controller-versions"
    directory.mkdir()
    places = Places(directory)
    places.create()
    make_versions(places)
    with places.held():
        yield places


def test_an_update_is_kept_and_a_bad_one_goes_back(
    tenant: Tenant, device: Made, report: Report, tmp_path: Path, versions: Places
) -> None:
    settings = {
        "TEG_CONTROLLER_RUNTIME": "process",
        "TEG_CONTROLLER_COMMAND": "python3 -u main.py",
        "TEG_CONTROLLER_ENVIRONMENT": f"PYTHONPATH={PROJECT}",
        "TEG_CONTROLLER_GIT_PATH": str(versions.repository / ".git"),
        "TEG_DEFAULT_CONTROLLER_VERSION": FIRST,
        "TEG_OTA_TRIAL_S": "2",
        "TEG_START_GRACE_S": "5",
    }
    with running(tmp_path, tenant, device, **settings) as gateway:
        gateway.wait_log("controller: running")
        for version, state in ((GOOD, "UPDATED"), (BAD, "FAILED")):
            digest: dict[str, Any] = {"url": "-", "isURL": True, "checksumAlgorithm": "SHA256", "checksum": "0" * 64}
            tenant.assign(device, tenant.package(None, version, **digest))
            told = eventually(partial(ended, tenant, device, state), f"the end of {version}")
            report.check(f"update to {version}", (state, GOOD), told)
        assert gateway.stop() == 0


def ended(tenant: Tenant, device: Made, state: str) -> tuple[str, str] | None:
    told = tenant.stored(device, "sw_state", "current_sw_version")
    return (told["sw_state"], told["current_sw_version"]) if told["sw_state"] == state else None


def test_it_provisions_itself(tenant: Tenant, report: Report, tmp_path: Path) -> None:
    key, secret = tenant.provisioning_key("ALLOW_CREATE_NEW_DEVICES")
    name = unique_name()
    settings = {
        "THINGSBOARD_PROVISION_DEVICE_KEY": key,
        "THINGSBOARD_PROVISION_DEVICE_SECRET": secret,
        "THINGSBOARD_DEVICE_NAME": name,
    }
    gateway = running(tmp_path, tenant, None, **settings)
    with closing(ControllerInbox(gateway.inbox_path)) as inbox, gateway:
        inbox.insert(message(7, START_MS))
        gateway.wait_log("connected to ", 60)
        device = Made(tenant.adopt(name), name, gateway.token_path.read_text().strip())
        report.check("a gateway that provisioned itself delivers", [7], arrives(tenant, device, [7]))
        assert gateway.stop() == 0


def test_what_the_reference_left_behind_arrives(tenant: Tenant, device: Made, report: Report, tmp_path: Path) -> None:
    gateway = running(tmp_path, tenant, device)
    reference = Reference(gateway.data_path, gateway.inbox_path)
    for number in range(20):
        reference.queued(number)
    reference.close()
    with gateway:
        report.check("queued by the reference", list(range(20)), arrives(tenant, device, list(range(20))))
        assert gateway.stop() == 0
    with closing(sqlite3.connect(gateway.inbox_path)) as inbox:
        [left] = inbox.execute("SELECT count(*) FROM sqlite_master WHERE name = 'pending_mqtt_messages'").fetchone()
        rows = inbox.execute("SELECT count(*) FROM pending_mqtt_messages").fetchone()[0] if left else 0
    report.check("nothing is left behind", 0, rows)
