"""OTA packages: what an assignment tells the device, and the download in chunks."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.conformance import Made, Tenant, eventually
from tests.support.conformance_report import Report
from tests.support.stand_in_client import ATTRIBUTES, PahoDevice, publish_packet

DATA = bytes(range(256)) * 40
FIELDS = {"sw": ("SOFTWARE", "softwareId"), "fw": ("FIRMWARE", "firmwareId")}


@pytest.fixture
def device(tenant: Tenant) -> Made:
    return tenant.device()


@pytest.fixture
def client(tenant: Tenant, device: Made) -> Iterator[PahoDevice]:
    """Subscribed to pushes, and registered."""
    client = tenant.client(device)
    client.subscribe(ATTRIBUTES)
    client.publish("v1/devices/me/attributes/request/1", "{}")
    client.wait_message("v1/devices/me/attributes/response/1")
    yield client
    client.close()


def pushes(client: PahoDevice, count: int) -> list[Any]:
    client.wait(lambda: len(_pushed(client)) >= count, f"{count} pushes")
    return [json.loads(payload) for payload in _pushed(client)]


def _pushed(client: PahoDevice) -> list[bytes]:
    return [payload for topic, payload, _ in client.messages if topic == ATTRIBUTES]


def chunk(client: PahoDevice, request: int, number: int, size: str, kind: str = "sw") -> bytes:
    client.publish(f"v2/{kind}/request/{request}/chunk/{number}", size)
    return client.wait_message(f"v2/{kind}/response/{request}/chunk/{number}")[-1]


def stored_state(tenant: Tenant, device: Made, key: str, wanted: str) -> None:
    def there() -> bool | None:
        return tenant.stored(device, key)[key] == wanted or None

    eventually(there, f"{key} {wanted}")


@pytest.mark.parametrize("kind", FIELDS)
def test_assignment_download_and_taking_away(
    tenant: Tenant, device: Made, client: PahoDevice, report: Report, kind: str
) -> None:
    package_type, field = FIELDS[kind]
    package = tenant.package(DATA, "1.10", package_type, tag="the tag")
    tenant.assign(device, package, field)
    said = pushes(client, 2)
    told = next(push for push in said if f"{kind}_version" in push)
    report.check(f"{kind}: the version stays text", "1.10", told[f"{kind}_version"])
    report.check(f"{kind}: the tag", "the tag", told[f"{kind}_tag"])
    report.check(f"{kind}: the size", len(DATA), told[f"{kind}_size"])
    report.check(f"{kind}: the checksum", hashlib.sha256(DATA).hexdigest(), told[f"{kind}_checksum"])
    report.check(f"{kind}: the algorithm", "SHA256", told[f"{kind}_checksum_algorithm"])
    deleted = next(push["deleted"] for push in said if "deleted" in push)
    report.check(f"{kind}: what no longer applies is deleted", [f"{kind}_url"], sorted(deleted))
    report.observe(f"{kind}: which of the two pushes came first", "deleted" if "deleted" in said[0] else "values")
    stored_state(tenant, device, f"{kind}_state", "INITIATED")
    target = tenant.stored(device, f"target_{kind}_version")
    report.check(f"{kind}: target version as telemetry", {f"target_{kind}_version": "1.10"}, target)
    parts = [chunk(client, 1, number, "4096", kind) for number in range(4)]
    report.check(f"{kind}: chunks, the last one beyond the end", [4096, 4096, 2048, 0], [len(part) for part in parts])
    report.check(f"{kind}: the download", DATA, b"".join(parts))
    tenant.assign(device, None, field)
    names = ("title", "version", "ts", "state", "size", "checksum", "checksum_algorithm", "url", "tag")
    gone = sorted(pushes(client, 3)[2]["deleted"])
    report.check(f"{kind}: taking it away deletes", sorted(f"{kind}_{name}" for name in names), gone)


def test_sizes_of_chunks(tenant: Tenant, device: Made, client: PahoDevice, report: Report) -> None:
    tenant.assign(device, tenant.package(DATA, "1"))
    pushes(client, 2)
    report.check("a size", DATA[:1000], chunk(client, 1, 0, "1000"))
    report.check("without a size: the one before of this request", DATA[1000:2000], chunk(client, 1, 1, ""))
    report.check("another size in the same request", DATA[1000:1500], chunk(client, 1, 2, "500"))
    report.check("an unknown request without a size: the whole in one", DATA, chunk(client, 2, 0, ""))


def test_a_request_keeps_its_package(tenant: Tenant, device: Made, client: PahoDevice, report: Report) -> None:
    tenant.assign(device, tenant.package(DATA, "1"))
    pushes(client, 2)
    chunk(client, 1, 0, "1000")
    other = tenant.package(DATA[::-1], "2")
    tenant.assign(device, other)
    pushes(client, 4)
    report.check("the former package under the former request", DATA[1000:2000], chunk(client, 1, 1, "1000"))
    report.check("the new one under a new request", DATA[::-1][:1000], chunk(client, 2, 0, "1000"))
    tenant.assign(device, other)
    tenant.share(device, {"after": 1})
    report.check("the same package once more pushes nothing", {"after": 1}, pushes(client, 5)[4])


@pytest.mark.parametrize(
    ("what", "prepare", "payload", "said"),
    [
        ("nothing assigned", None, b"4096", b"NOT_FOUND"),
        ("a package with a URL", {"url": "http://example.org/ctl", "checksumAlgorithm": "SHA256"}, b"4096", b"FAILURE"),
        ("a chunk of more than 65,536 bytes", None, b"65537", b"PAYLOAD_TOO_LARGE"),
    ],
)
def test_errors_are_told_and_the_session_closed(
    tenant: Tenant, device: Made, report: Report, what: str, prepare: dict[str, str] | None, payload: bytes, said: bytes
) -> None:
    if prepare:
        tenant.assign(device, tenant.package(None, "1", checksum="0" * 64, **prepare))
        tenant.stored(device, "sw_state")
    with tenant.raw(device) as raw:
        seen = raw.send(publish_packet("v2/sw/request/1/chunk/0", payload)).rest()
    report.check(f"{what}: told on v2/fw/error, then closed", True, b"v2/fw/error" in seen and seen.endswith(said))


def test_a_url_without_checksum_algorithm(tenant: Tenant, device: Made, report: Report) -> None:
    """As the web page of 4.2 and 4.2.1 makes it."""
    tenant.assign(device, tenant.package(None, "1", url="http://example.org/ctl"))
    tenant.stored(device, "sw_state")
    broken = tenant.target.behaviour.url_package_needs_algorithm

    def found() -> list[str] | None:
        keys = sorted(tenant.attributes(device, "SHARED_SCOPE"))
        return keys if keys or broken else None

    expected = [] if broken else ["sw_title", "sw_url", "sw_version"]
    report.check(f"shared attributes in {tenant.target.version}", expected, eventually(found, "shared attributes"))
