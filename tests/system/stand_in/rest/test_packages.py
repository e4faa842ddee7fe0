"""OTA packages over the REST API: described, uploaded, assigned, downloaded by the device."""

import hashlib
import json
import uuid
from typing import Any

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.rest import Rest
from tests.support.stand_in_client import ATTRIBUTES, PahoDevice

DATA = bytes(range(256)) * 8


def described(rest: Rest, version: str = "v1", kind: str = "SOFTWARE", **fields: Any) -> str:
    body = {"type": kind, "title": "ctl", "version": version, **fields}
    identity: str = rest.post("/api/otaPackage", body).json()["id"]["id"]
    return identity


def uploaded(rest: Rest, identity: str, status: int = 200, **query: str) -> Any:
    files = {"file": ("ctl.tar", DATA, "application/x-tar")}
    return rest.post(f"/api/otaPackage/{identity}", status=status, files=files, params=query).json()


def assign(rest: Rest, device: Device, identity: str | None, status: int = 200, field: str = "softwareId") -> Any:
    body = rest.get(f"/api/device/{device.id}").json()
    wanted = identity and {"entityType": "OTA_PACKAGE", "id": identity}
    return rest.post("/api/device", {**body, field: wanted}, status=status).json()


def test_from_description_to_download(rest: Rest, device: Device, client: PahoDevice) -> None:
    client.subscribe(ATTRIBUTES)
    identity = described(rest, tag="ctl v1")
    info = uploaded(rest, identity)
    assert (info["hasData"], info["dataSize"], info["fileName"]) == (True, len(DATA), "ctl.tar")
    assert (info["checksumAlgorithm"], info["checksum"]) == ("SHA256", hashlib.sha256(DATA).hexdigest())
    assert rest.get(f"/api/otaPackage/info/{identity}").json() == info
    assert rest.get(f"/api/otaPackage/{identity}/download").content == DATA
    assert assign(rest, device, identity)["softwareId"]["id"] == identity
    pushes = [json.loads(payload) for payload in client.wait_message(ATTRIBUTES, 2)]
    assert {"sw_title": "ctl", "sw_version": "v1", "sw_size": len(DATA)}.items() <= pushes[1].items()
    client.publish("v2/sw/request/1/chunk/0", "4096")
    assert client.wait_message("v2/sw/response/1/chunk/0") == [DATA]


def test_taking_the_package_away_again(rest: Rest, device: Device) -> None:
    identity = described(rest)
    uploaded(rest, identity)
    assign(rest, device, identity)
    assert device.shared_attributes["sw_version"] == "v1"
    assert assign(rest, device, None)["softwareId"] is None
    assert device.shared_attributes == {}


def test_checksums_are_computed_or_given(rest: Rest) -> None:
    assert uploaded(rest, described(rest, "1"), checksumAlgorithm="CRC32")["checksumAlgorithm"] == "CRC32"
    assert uploaded(rest, described(rest, "2"), checksum="00" * 32)["checksum"] == "00" * 32
    assert "SHA1" in uploaded(rest, described(rest, "3"), 400, checksumAlgorithm="SHA1")["message"]


@pytest.mark.parametrize("version", ["4.2.1", "4.2.1.1"])
def test_a_package_with_a_url_as_the_web_page_makes_it(version: str) -> None:
    with ThingsBoard(rest_port=0, limits=ServerLimits(version=version)) as server:
        device, rest = server.add_device("pi-07"), Rest(server.rest_url)
        assign(rest, device, described(rest, url="http://x/ctl"))
        assert device.shared_attributes.get("sw_url") == (None if version == "4.2.1" else "http://x/ctl")
        rest.close()


def test_firmware_is_not_software(rest: Rest, device: Device) -> None:
    identity = described(rest, kind="FIRMWARE", url="http://x")
    assert "message" in assign(rest, device, identity, 400)
    assert assign(rest, device, identity, field="firmwareId")["firmwareId"]["id"] == identity
    assert device.shared_attributes["fw_url"] == "http://x"


def test_what_is_wrong_is_said(rest: Rest, device: Device) -> None:
    identity = described(rest)
    assert "empty data" in assign(rest, device, identity, 400)["message"]
    again = rest.post("/api/otaPackage", {"type": "SOFTWARE", "title": "ctl", "version": "v1"}, status=400).json()
    assert "already exists" in again["message"]
    rest.post("/api/otaPackage", {"type": "HARDWARE", "title": "x", "version": "1"}, status=400)
    rest.post(f"/api/otaPackage/{identity}", status=400, files={"other": b"x"})
    rest.get(f"/api/otaPackage/{described(rest, 'v2', url='http://x')}/download", status=400)
    rest.get(f"/api/otaPackage/info/{uuid.uuid4()}", status=404)
    assign(rest, device, str(uuid.uuid4()), 404)


def test_packages_are_listed_and_deleted(rest: Rest) -> None:
    ids = [described(rest, version) for version in ("1", "2")]
    rest.delete(f"/api/otaPackage/{ids[0]}")
    page = rest.get("/api/otaPackages", pageSize=10, page=0).json()
    assert [item["version"] for item in page["data"]] == ["2"]
