"""OTA packages: what an assignment tells the device, and the download in chunks."""

import hashlib
import json
from typing import Any

from teg.simulator.thingsboard.server_versions import VERSIONS
from tests.support.conformance import Report, Tenant, eventually
from tests.support.stand_in_client import ATTRIBUTES, RawSocket, connect_packet, publish_packet

DATA = bytes(range(256)) * 40


def test_assignment_download_and_taking_away(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.subscribe(ATTRIBUTES)
    package = tenant.package(DATA, "1.10")
    tenant.assign(device, package)
    pushes = [json.loads(payload) for payload in client.wait_message(ATTRIBUTES, 2)]
    told: dict[str, Any] = next(push for push in pushes if "sw_version" in push)
    report.check("the version stays text", "1.10", told["sw_version"])
    report.check("the size", len(DATA), told["sw_size"])
    report.check("the checksum", hashlib.sha256(DATA).hexdigest(), told["sw_checksum"])
    deleted = next(push["deleted"] for push in pushes if "deleted" in push)
    report.check("what no longer applies is deleted", ["sw_tag", "sw_url"], sorted(deleted))
    report.check("sw_state", "INITIATED", tenant.stored(device, "sw_state")["sw_state"])
    parts = []
    for number in range(4):
        client.publish(f"v2/sw/request/1/chunk/{number}", "4096")
        parts += client.wait_message(f"v2/sw/response/1/chunk/{number}")
    report.check("chunks, the last one beyond the end", [4096, 4096, 2048, 0], [len(part) for part in parts])
    report.check("the download", DATA, b"".join(parts))
    tenant.assign(device, None)
    gone = json.loads(client.wait_message(ATTRIBUTES, 3)[2])
    report.check("taking it away deletes", True, {"sw_title", "sw_version", "sw_url"} <= set(gone["deleted"]))
    client.close()


def test_errors_are_told_and_the_session_closed(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    raw = RawSocket(tenant.target.host, tenant.target.port).send(connect_packet(device.token))
    assert raw.packet() == b"\x20\x02\x00\x00"
    said = raw.send(publish_packet("v2/sw/request/1/chunk/0", b"4096")).rest()
    raw.socket.close()
    report.check("nothing assigned", True, b"v2/fw/error" in said and said.endswith(b"NOT_FOUND"))


def test_a_url_without_checksum_algorithm(tenant: Tenant, report: Report) -> None:
    """As the web page of 4.2 and 4.2.1 makes it."""
    device = tenant.device()
    tenant.assign(device, tenant.package(None, "1", url="http://example.org/ctl"))
    tenant.stored(device, "sw_state")
    broken = VERSIONS[tenant.target.version].url_package_needs_algorithm
    path = f"{tenant.telemetry_path(device)}/values/attributes/SHARED_SCOPE"

    def found() -> list[str] | None:
        keys = sorted(item["key"] for item in tenant.rest.get(path).json())
        return keys if keys or broken else None

    expected = [] if broken else ["sw_title", "sw_url", "sw_version"]
    report.check(f"shared attributes in {tenant.target.version}", expected, eventually(found, "shared attributes"))
