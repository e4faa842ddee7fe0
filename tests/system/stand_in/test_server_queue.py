"""Acknowledged is not stored: packs, crashes, orderly stops, backups, over a real socket."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from teg.simulator.thingsboard.server_queue import PackOrder
from tests.support.stand_in_client import ATTRIBUTES, TELEMETRY, PahoDevice

#: Nothing is stored as long as a test runs, unless the test lets it.
FOR_EVER_S = 10_000.0


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(limits=ServerLimits(pack_size=10)) as server:
        yield server


def records(first: int, count: int) -> str:
    return json.dumps([{"ts": ts, "values": {"a": ts}} for ts in range(first, first + count)])


def stored(device: Device) -> set[int]:
    return {ts for _, ts in device.telemetry()}


def read_back(client: PahoDevice, number: int) -> Any:
    client.publish(f"v1/devices/me/attributes/request/{number}", '{"clientKeys": "mark"}')
    (answer,) = client.wait_message(f"v1/devices/me/attributes/response/{number}")
    return json.loads(answer)


def test_without_a_delay_what_is_acknowledged_is_stored(client: PahoDevice, device: Device) -> None:
    client.publish(TELEMETRY, records(1, 3))
    assert stored(device) == {1, 2, 3}


def test_acknowledged_at_once_and_stored_later(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    server.faults.store_delay_s = 0.2
    client.publish(TELEMETRY, records(1, 25))
    client.publish(ATTRIBUTES, '{"mark": 1}')
    assert device.records_received == 25
    assert server.queued > 0 and device.client_attributes == {}
    server.wait_stored()
    assert stored(device) == set(range(1, 26))
    assert device.client_attributes == {"mark": 1}
    assert not device.conflicts


def test_a_request_reads_what_is_stored(server: ThingsBoard, client: PahoDevice) -> None:
    client.publish(ATTRIBUTES, '{"mark": 1}')
    server.faults.store_delay_s = 0.2
    client.publish(ATTRIBUTES, '{"mark": 2}')
    assert read_back(client, 1) == {"client": {"mark": 1}}
    server.wait_stored()
    assert read_back(client, 2) == {"client": {"mark": 2}}


def test_a_crash_forgets_what_was_acknowledged(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    client.publish(TELEMETRY, records(1, 5))
    server.faults.store_delay_s = FOR_EVER_S
    client.publish(TELEMETRY, records(6, 100))
    client.publish(ATTRIBUTES, '{"mark": 1}')
    server.crash()
    client.wait_closed()
    device.wait_disconnected()
    assert (stored(device), device.client_attributes, server.queued) == ({1, 2, 3, 4, 5}, {}, 0)
    assert device.records_received == 105
    server.faults.store_delay_s = 0
    again = PahoDevice("T1").opened(server.host, server.port)
    again.publish(TELEMETRY, records(6, 100))
    assert stored(device) == set(range(1, 106))
    again.close()


def test_a_crash_may_leave_a_part_of_one_payload(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    server.faults.store_delay_s = 0.5
    client.publish(TELEMETRY, records(1, 500))
    device.wait_for(lambda d: d.distinct >= 5, 10, "some of the records")
    server.crash()
    assert 5 <= len(stored(device)) < 500


@pytest.mark.parametrize("order", ["any", "attributes_first"])
def test_two_marks_prove_what_was_sent_before_the_first_of_them(
    server: ThingsBoard, client: PahoDevice, device: Device, order: PackOrder
) -> None:
    """As tried on the real server: the second mark read back proves all that was acknowledged before the first."""
    server.faults.store_delay_s = 0.05
    server.faults.pack_order = order
    client.publish(TELEMETRY, records(1, 37))
    client.publish(ATTRIBUTES, '{"mark": 1}')
    device.wait_for(lambda d: d.client_attributes.get("mark") == 1, 10, "the first mark")
    client.publish(ATTRIBUTES, '{"mark": 2}')
    device.wait_for(lambda d: d.client_attributes.get("mark") == 2, 10, "the second mark")
    server.crash()
    assert stored(device) == set(range(1, 38))


def test_one_mark_alone_proves_nothing(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    """In one pack the attribute may be stored and the records never: this is why a second mark is needed."""
    client.publish(TELEMETRY, records(0, 1))
    server.faults.store_delay_s = 1.0
    server.faults.pack_order = "attributes_first"
    client.publish(TELEMETRY, records(1, 1))  # a pack of its own, under way
    client.publish(TELEMETRY, records(2, 9))
    client.publish(ATTRIBUTES, '{"mark": 1}')
    device.wait_for(lambda d: d.client_attributes.get("mark") == 1, 10, "the mark")
    server.crash()
    assert stored(device) == {0, 1}


def test_a_rule_chain_that_keeps_no_client_attributes(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    server.faults.drop_client_attributes = True
    client.publish(ATTRIBUTES, '{"mark": 1}')
    client.publish(TELEMETRY, records(1, 1))
    assert read_back(client, 1) == {}
    assert (device.client_attributes, stored(device)) == ({}, {1})


def test_an_orderly_restart_stores_what_is_queued(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    server.faults.store_delay_s = FOR_EVER_S
    client.publish(TELEMETRY, records(1, 30))
    server.restart()
    client.wait_closed()
    assert stored(device) == set(range(1, 31))


def test_an_orderly_stop_stores_what_is_queued() -> None:
    with ThingsBoard() as server:
        device = server.add_device("pi-07", token="T1")
        server.faults.store_delay_s = FOR_EVER_S
        client = PahoDevice("T1").opened(server.host, server.port)
        client.publish(TELEMETRY, records(1, 30))
        assert stored(device) == set()
    client.close()
    assert stored(device) == set(range(1, 31))


def test_a_crash_empties_the_token_buckets() -> None:
    with ThingsBoard(limits=ServerLimits(rate_limits="1:600")) as server:
        device = server.add_device("pi-07", token="T1")
        PahoDevice("T1").opened(server.host, server.port).close()
        device.wait_disconnected()
        server.crash()
        PahoDevice("T1").opened(server.host, server.port).close()


def test_a_restored_backup_is_older_than_what_was_proven(
    server: ThingsBoard, client: PahoDevice, device: Device
) -> None:
    client.publish(TELEMETRY, records(1, 3))
    client.publish(ATTRIBUTES, '{"mark": 1}')
    device.set_shared({"limit": 5})
    backup = server.backup()
    client.publish(TELEMETRY, records(2, 5))
    client.publish(ATTRIBUTES, '{"mark": 2, "other": 1}')
    device.set_shared({"limit": 6})
    server.add_device("newer")
    server.restore(backup)
    client.wait_closed()
    assert stored(device) == {1, 2, 3}
    assert (device.client_attributes, device.shared_attributes) == ({"mark": 1}, {"limit": 5})
    assert [known.name for known in server.devices] == ["pi-07"]
    again = PahoDevice("T1").opened(server.host, server.port)
    assert read_back(again, 1) == {"client": {"mark": 1}}
    again.close()


def test_a_device_created_anew_is_empty_and_keeps_its_token(
    server: ThingsBoard, client: PahoDevice, device: Device
) -> None:
    client.publish(TELEMETRY, records(1, 3))
    client.publish(ATTRIBUTES, '{"mark": 1}')
    server.faults.store_delay_s = 0.1
    client.publish(TELEMETRY, records(4, 3))
    anew = server.recreate_device("pi-07")
    client.wait_closed()
    assert device.sessions[-1].close_reason == "device deleted"
    server.wait_stored()
    assert (anew.telemetry(), anew.client_attributes) == ({}, {})
    again = PahoDevice("T1").opened(server.host, server.port)
    assert read_back(again, 1) == {}
    again.close()


def test_a_delivered_persistent_call_stays_delivered_after_a_crash(server: ThingsBoard, device: Device) -> None:
    """Its answer has no addressee any more, and nobody ever ends it."""
    client = PahoDevice("T1").opened(server.host, server.port)
    client.subscribe("v1/devices/me/rpc/request/+")
    call = device.rpc_async("slow", persistent=True, timeout_s=0.3)
    waiting = device.rpc_async("one more", persistent=True, timeout_s=60)
    device.wait_for(lambda _: call.state == waiting.state == "DELIVERED", 10, "delivery")
    server.crash()
    client.wait_closed()
    again = PahoDevice("T1").opened(server.host, server.port)
    again.subscribe("v1/devices/me/rpc/request/+")
    again.publish(f"v1/devices/me/rpc/response/{waiting.id}", '{"done": true}')
    assert again.messages == []
    assert device.stale_rpc_responses == [(waiting.id, b'{"done": true}')]
    assert (call.state, waiting.state) == ("DELIVERED", "DELIVERED")
    again.close()
