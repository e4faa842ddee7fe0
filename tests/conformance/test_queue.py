"""Acknowledged is not stored: what the server's queue promises, what it does not, and what proves it."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests

from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.conformance.stand_ins import stand_in
from tests.support.conformance import Made, Tenant, eventually
from tests.support.conformance_report import Report
from tests.support.conformance_target import Target
from tests.support.stand_in_client import ATTRIBUTES, TELEMETRY, PahoDevice

START_MS = 1_767_225_600_000
BATCH = 400


@pytest.fixture(scope="module")
def late(target: Target) -> Iterator[Target]:
    """Our stand-in as it is while the rule engine is busy, and with the order that is worst for a proof."""
    if not target.is_stand_in:
        yield target
        return
    with stand_in(ServerLimits(pack_size=100)) as server:
        server.faults.store_delay_s, server.faults.pack_order = 0.1, "attributes_first"
        yield Target(server.rest_url, server.host, server.port, crash=server.crash)


@pytest.fixture
def tenant(late: Target) -> Iterator[Tenant]:
    tenant = Tenant(late.rest(), late)
    yield tenant
    tenant.clean_up()


def publish(client: PahoDevice, first: int, count: int) -> None:
    """Records one by one; returns when all are acknowledged."""
    numbers = range(first, first + count)
    sent = [client.send(TELEMETRY, f'{{"ts": {START_MS + n}, "values": {{"n": {n}}}}}') for n in numbers]
    client.wait(lambda: set(sent) <= client.ack_codes.keys(), f"{count} PUBACKs")


def stored(tenant: Tenant, device: Made) -> set[int]:
    return set(tenant.series(device, "n", START_MS, START_MS + 100 * BATCH))


def read_back(client: PahoDevice, number: int, mark: str) -> None:
    """Ask for the client attribute until the server's database has it."""
    topic = "v1/devices/me/attributes/request/"

    def found() -> bool | None:
        read_back.asked += 1  # type: ignore[attr-defined]
        client.publish(f"{topic}{read_back.asked}", '{"clientKeys": "mark"}')  # type: ignore[attr-defined]
        answer = client.wait_message(f"v1/devices/me/attributes/response/{read_back.asked}")[0]  # type: ignore[attr-defined]
        return json.loads(answer) == {"client": {"mark": mark}} or None

    eventually(found, f"watermark {number}")


read_back.asked = 0  # type: ignore[attr-defined]


def test_the_watermark(tenant: Tenant, report: Report) -> None:
    """Publish A; when A is read back, publish B: when B is read back, all before A is stored."""
    device = tenant.device()
    client = tenant.client(device)
    publish(client, 0, BATCH)
    report.observe("records of 400 that are stored when their last PUBACK came", len(stored(tenant, device)))
    client.publish(ATTRIBUTES, '{"mark": "A"}')
    publish(client, BATCH, BATCH)
    read_back(client, 1, "A")
    between = len(stored(tenant, device) & set(range(BATCH)))
    report.observe("records of the 400 before A that are stored when A is read back: the order in a pack", between)
    client.publish(ATTRIBUTES, '{"mark": "B"}')
    read_back(client, 2, "B")
    missing = sorted(set(range(BATCH)) - stored(tenant, device))
    report.check("B is read back: what was acknowledged before A and is not stored", [], missing)
    client.close()


def test_a_crash_of_the_server(tenant: Tenant, report: Report) -> None:
    """It forgets what it had queued, and nothing below a proven watermark."""
    crash = tenant.target.crash
    if crash is None:
        report.not_checked("what a crash of the server loses", "the server has to be killed: TB_TEST_CRASH")
    device = tenant.device()
    client = tenant.client(device)
    publish(client, 0, BATCH)
    client.publish(ATTRIBUTES, '{"mark": "A"}')
    read_back(client, 1, "A")
    client.publish(ATTRIBUTES, '{"mark": "B"}')
    read_back(client, 2, "B")
    publish(client, BATCH, BATCH)
    crash()
    client.close()
    wait_for_rest(tenant)
    kept = stored(tenant, device)
    report.check("below the watermark nothing is missing", [], sorted(set(range(BATCH)) - kept))
    report.observe("acknowledged after it, and lost", 2 * BATCH - len(kept))
    again = tenant.client(device)
    publish(again, BATCH, BATCH)
    all_there = eventually(lambda: len(stored(tenant, device)) == 2 * BATCH or None, "what was sent again")
    report.check("sent again, it is stored once", True, all_there)
    again.close()


def wait_for_rest(tenant: Tenant) -> None:
    """A real server takes a minute to start."""
    deadline_s = time.monotonic() + 600
    while time.monotonic() < deadline_s:
        with suppress(requests.RequestException):
            if tenant.rest.get("/api/system/info", status=None).ok:
                return
        time.sleep(0.2)
    raise AssertionError("the REST API does not come back")
