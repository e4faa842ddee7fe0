"""Software packages over a real socket: assignment, pushes in both orders, and the chunked download."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.device_state import PushOrder
from teg.simulator.thingsboard.faults import next_n
from teg.simulator.thingsboard.ota_packages import Package
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.stand_in_client import ATTRIBUTES, PahoDevice, logged_in, publish_packet

DATA = bytes(range(256)) * 20


@pytest.fixture
def client(server: ThingsBoard, device: Device) -> Iterator[PahoDevice]:
    client = PahoDevice("T1").opened(server.host, server.port)
    client.subscribe(ATTRIBUTES)
    yield client
    client.close()


def pushes(client: PahoDevice, count: int) -> list[Any]:
    return [json.loads(payload) for payload in client.wait_message(ATTRIBUTES, count)]


def chunk(client: PahoDevice, request: int, number: int, size: str | int) -> bytes:
    client.publish(f"v2/sw/request/{request}/chunk/{number}", str(size))
    return client.wait_message(f"v2/sw/response/{request}/chunk/{number}")[-1]


@pytest.mark.parametrize("order", ["set_first", "delete_first"])
def test_assignment_of_a_stored_package(client: PahoDevice, device: Device, order: PushOrder) -> None:
    device.assign_software("ctl", "1.10", DATA, order=order)
    new = {
        "sw_title": "ctl",
        "sw_version": "1.10",
        "sw_size": 5120,
        "sw_checksum_algorithm": "SHA256",
        "sw_checksum": hashlib.sha256(DATA).hexdigest(),
    }
    both = [new, {"deleted": ["sw_tag", "sw_url"]}]
    assert pushes(client, 2) == (both if order == "set_first" else both[::-1])
    assert device.shared_attributes == new
    assert device.latest("target_sw_version") == "1.10"
    assert [values.get("sw_state") for _, values in device.server_telemetry] == ["QUEUED", "INITIATED"]
    assert device.telemetry() == {}


def test_order_of_the_two_pushes_is_as_most_often_seen(client: PahoDevice, device: Device) -> None:
    device.assign_software("ctl", "v1", DATA)
    assert "deleted" in pushes(client, 2)[0]


def test_both_orders_occur_when_told_to() -> None:
    with ThingsBoard(limits=ServerLimits(push_order="either")) as server:
        device = server.add_device("pi-07", token="T1")
        client = PahoDevice("T1").opened(server.host, server.port)
        client.subscribe(ATTRIBUTES)
        for number in range(3):
            device.assign_software("ctl", f"v{number}", DATA)
        assert ["deleted" in push for push in pushes(client, 6)] == [True, False, False, True, True, False]
        client.close()


@pytest.mark.parametrize(("version", "algorithm"), [("4.2.1", None), ("4.2.1", "SHA256"), ("4.2.1.1", None)])
def test_a_url_without_checksum_algorithm_fails_in_an_old_server(version: str, algorithm: str | None) -> None:
    with ThingsBoard(limits=ServerLimits(version=version)) as server:
        device = server.add_device("pi-07", token="T1")
        client = PahoDevice("T1").opened(server.host, server.port)
        client.subscribe(ATTRIBUTES)
        device.assign_software("ctl", "v1", url="http://x/ctl", algorithm=algorithm)
        broken = version == "4.2.1" and algorithm is None
        assert ("sw_title" in device.shared_attributes) is not broken
        assert [values.get("sw_state") for _, values in device.server_telemetry] == ["QUEUED", "INITIATED"]
        client.publish("v1/devices/me/telemetry", "{}")
        assert len(client.messages) == (0 if broken else 2)
        client.close()


def test_same_package_again_sends_nothing_and_another_one_does(client: PahoDevice, device: Device) -> None:
    device.assign_software("ctl", "v1")
    device.assign_software("ctl", "v1")
    device.assign_software("ctl", "v2")
    assert [push.get("sw_version") for push in pushes(client, 4)] == [None, "v1", None, "v2"]
    client.publish("v1/devices/me/telemetry", "{}")
    assert len(client.messages) == 4


def test_unassigning(client: PahoDevice, device: Device) -> None:
    device.assign_software("ctl", "v1", url="-", tag="ctl v1")
    assert device.shared_attributes == {
        "sw_title": "ctl",
        "sw_version": "v1",
        "sw_tag": "ctl v1",
        "sw_url": "-",
    }
    device.unassign_software()
    names = ["title", "version", "ts", "state", "size", "checksum", "checksum_algorithm", "url", "tag"]
    assert pushes(client, 3)[-1] == {"deleted": [f"sw_{name}" for name in names]}
    assert device.shared_attributes == {}
    device.unassign_software()
    client.publish("v1/devices/me/telemetry", "{}")
    assert len(client.messages) == 3


def test_firmware_has_its_own_attributes(client: PahoDevice, device: Device) -> None:
    device.assign_firmware(Package("fw", "1", DATA, algorithm="CRC32"))
    assert device.shared_attributes["fw_checksum_algorithm"] == "CRC32"
    client.publish("v2/fw/request/0/chunk/0", "10")
    assert client.wait_message("v2/fw/response/0/chunk/0") == [DATA[:10]]
    device.unassign_firmware()
    assert device.shared_attributes == {}


def test_download_in_chunks(client: PahoDevice, device: Device) -> None:
    device.assign_software("ctl", "v1", DATA)
    parts = [chunk(client, 1, number, 2048) for number in range(4)]
    assert [len(part) for part in parts] == [2048, 2048, 1024, 0]
    assert b"".join(parts) == DATA


def test_chunk_size_is_remembered_and_an_unknown_request_gets_all(client: PahoDevice, device: Device) -> None:
    device.assign_software("ctl", "v1", DATA)
    assert chunk(client, 1, 0, 2048) == DATA[:2048]
    assert chunk(client, 1, 1, "") == DATA[2048:4096]
    assert chunk(client, 2, 0, "") == DATA
    assert chunk(client, 3, 0, 0) == DATA


def test_package_is_pinned_to_its_request(client: PahoDevice, device: Device) -> None:
    device.assign_software("ctl", "v1", DATA)
    assert chunk(client, 1, 0, 100) == DATA[:100]
    device.assign_software("ctl", "v2", b"new")
    assert chunk(client, 1, 1, 100) == DATA[100:200]
    assert chunk(client, 2, 0, 100) == b"new"


def test_wrong_checksum_and_altered_chunks(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    device.assign_software("ctl", "v1", DATA, checksum="00" * 32)
    assert device.shared_attributes["sw_checksum"] == "00" * 32
    server.faults.ota_chunk = lambda number, data: {0: b"", 1: None}.get(number, data[::-1])
    assert chunk(client, 1, 0, 100) == b""
    assert chunk(client, 1, 2, 100) == DATA[200:300][::-1]
    client.publish("v2/sw/request/1/chunk/1", "100")
    client.publish("v1/devices/me/telemetry", "{}")
    assert client.on_topic("v2/sw/response/1/chunk/1") == []


def test_reordered_chunks(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    device.assign_software("ctl", "v1", DATA)
    pushes(client, 2)
    server.faults.reorder_downlinks = next_n(1)
    for number in (0, 1):
        client.publish(f"v2/sw/request/1/chunk/{number}", "100")
    client.wait_message("v2/sw/response/", 2)
    topics = [topic for topic, _, _ in client.messages if topic.startswith("v2/sw")]
    assert topics == ["v2/sw/response/1/chunk/1", "v2/sw/response/1/chunk/0"]


@pytest.mark.parametrize(
    ("url", "size", "error"),
    [
        (None, b"1024", b"NOT_FOUND"),
        ("http://example.org/ctl", b"1024", b"FAILURE"),
        ("stored", b"65537", b"PAYLOAD_TOO_LARGE"),
        ("stored", b"many", b""),
    ],
)
def test_error_is_told_and_the_session_closed(
    server: ThingsBoard, device: Device, url: str | None, size: bytes, error: bytes
) -> None:
    if url is not None:
        data = DATA if url == "stored" else None
        device.assign_software("ctl", "v1", data, url=None if data else url)
    with logged_in(server.host, server.port) as raw:
        said = raw.send(publish_packet("v2/sw/request/1/chunk/0", size)).rest()
    assert said.endswith(error)
    assert (b"v2/fw/error" in said) == bool(error)
    device.wait_disconnected()
    assert device.sessions[0].close_reason.startswith("package download")


def test_malformed_chunk_topic_is_just_unknown(client: PahoDevice) -> None:
    client.publish("v2/sw/request/x/chunk/0", "100")
    assert client.messages == []
