"""Each fault that a test can switch on, as a client sees it."""

import json
import threading

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import every, next_n, when
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.traffic import Publish
from tests.support.stand_in_client import (
    TELEMETRY,
    PahoDevice,
    RawSocket,
    connect_packet,
    eventually,
    logged_in,
    publish_packet,
)


def record(ts: int) -> str:
    return json.dumps({"ts": ts, "values": {"a": ts}})


def is_bad(publish: Publish) -> bool:
    return b"poison" in publish.payload


def test_delayed_pubacks_show_the_window_of_the_client(server: ThingsBoard, device: Device) -> None:
    server.faults.puback_delay_s = 0.05
    with logged_in(server.host, server.port) as raw:
        raw.send(*[publish_packet(TELEMETRY, record(mid).encode(), mid) for mid in range(1, 6)])
        assert [raw.packet()[3] for _ in range(5)] == [1, 2, 3, 4, 5]
    assert device.max_unacked == 5
    device.assert_max_unacked(5)
    with pytest.raises(AssertionError, match="5 publishes"):
        device.assert_max_unacked(4)


def test_prompt_pubacks_leave_nothing_in_flight(client: PahoDevice, device: Device) -> None:
    for ts in range(5):
        client.publish(TELEMETRY, record(ts))
    assert device.max_unacked == 1


def test_dropped_pubacks(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    server.faults.drop_puback = every(2)
    first, second, third = (client.send(TELEMETRY, record(ts)) for ts in range(3))
    client.wait(lambda: third in client.acked, "the third PUBACK")
    assert client.acked == [first, third]
    assert second not in client.acked
    assert [publish.acked for publish in device.publishes] == [True, False, True]
    assert len(device.telemetry()) == 3
    assert server.faults.drop_puback.struck == 1


def test_pubacks_in_reverse_order(server: ThingsBoard, client: PahoDevice) -> None:
    server.faults.puback_out_of_order = 3
    server.faults.collect_s = 5
    mids = [client.send(TELEMETRY, record(ts)) for ts in range(3)]
    client.wait(lambda: len(client.acked) == 3, "three PUBACKs")
    assert client.acked == mids[::-1]


def test_out_of_order_pubacks_do_not_wait_for_ever(server: ThingsBoard, client: PahoDevice) -> None:
    server.faults.puback_out_of_order = 3
    server.faults.collect_s = 0.05
    client.publish(TELEMETRY, record(1))


def test_closed_after_storing_but_before_the_puback(server: ThingsBoard, client: PahoDevice, device: Device) -> None:
    server.faults.close_before_puback = next_n(1)
    client.send(TELEMETRY, record(5))
    client.wait_closed()
    assert device.telemetry() == {("a", 5): 5}
    again = PahoDevice("T1").opened(server.host, server.port)
    again.publish(TELEMETRY, record(5))
    again.close()
    assert device.duplicates == 1
    device.assert_each_stored_once({("a", 5): 5})


def test_poison_closes_every_time_and_is_never_stored(server: ThingsBoard, device: Device) -> None:
    server.faults.poison = when(is_bad)
    for _ in range(3):
        with logged_in(server.host, server.port) as raw:
            raw.send(publish_packet(TELEMETRY, b'{"a": "poison"}'))
            assert raw.rest() == b""
    with logged_in(server.host, server.port) as raw:
        assert raw.send(publish_packet(TELEMETRY, b"{}")).packet() == b"\x40\x02\x00\x01"
    assert device.telemetry() == {}
    assert server.faults.poison.struck == 3


def test_reset(server: ThingsBoard, device: Device) -> None:
    server.faults.reset = next_n(1)
    with logged_in(server.host, server.port) as raw:
        raw.send(publish_packet(TELEMETRY, b'{"a": 1}'))
        assert raw.ends_with_reset()
    assert device.telemetry() == {}
    assert device.sessions[0].close_reason == "fault: reset"


def test_reset_of_all_connections(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        server.reset_connections()
        assert raw.ends_with_reset()
    assert server.open_connections == 0


def test_frozen_server_takes_bytes_and_says_nothing(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        server.faults.freeze = True
        raw.send(b"\xc0\x00", publish_packet(TELEMETRY, b'{"a": 1}'))
        fresh = RawSocket(server.host, server.port).send(connect_packet())
        assert fresh.silent_for(0.1)
        assert raw.silent_for(0.1)
        fresh.socket.close()
        server.faults.freeze = False
        assert raw.send(b"\xc0\x00").packet() == b"\xd0\x00"
    assert device.telemetry() == {}


def test_lost_pingresp(server: ThingsBoard, device: Device) -> None:
    server.faults.drop_pingresp = True
    with logged_in(server.host, server.port) as raw:
        raw.send(b"\xc0\x00", publish_packet(TELEMETRY, b"{}"))
        assert raw.packet() == b"\x40\x02\x00\x01"


def test_paused_reading_blocks_the_writer(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        server.pause_reading()
        large = publish_packet(TELEMETRY, b'{"a": "' + b"x" * 60_000 + b'"}')
        blocked = threading.Thread(target=raw.send, args=(large * 300,))
        blocked.start()
        blocked.join(0.3)
        assert blocked.is_alive()
        server.pause_reading(False)
        assert raw.take(4 * 300) == b"\x40\x02\x00\x01" * 300
        blocked.join(60)
        assert not blocked.is_alive()


def test_clear_turns_everything_off(server: ThingsBoard, client: PahoDevice) -> None:
    server.faults.drop_puback = every(1)
    server.faults.puback_delay_s = 30
    server.faults.connack_codes = [3]
    server.faults.clear()
    client.publish(TELEMETRY, "{}")
    PahoDevice("T1").opened(server.host, server.port).close()


def test_a_fault_of_the_stand_in_itself_fails_the_test(device: Device) -> None:
    def broken(_publish: Publish) -> bool:
        raise RuntimeError("a broken predicate")

    with pytest.raises(AssertionError, match="broken predicate"), ThingsBoard() as server:
        server.add_device("pi-07", token="T1")
        server.faults.poison = when(broken)
        with logged_in(server.host, server.port) as raw:
            raw.send(publish_packet(TELEMETRY, b"{}"))
            assert raw.rest() == b""


def test_stopping_ends_open_connections_without_noise(device: Device) -> None:
    with ThingsBoard() as server:
        server.add_device("pi-07", token="T1")
        idle = RawSocket(server.host, server.port)
        client = PahoDevice("T1").opened(server.host, server.port)
        eventually(lambda: server.open_connections == 2)
    assert idle.rest() == b""
    idle.socket.close()
    client.wait_closed()
    client.close()
