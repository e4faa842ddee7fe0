"""Rate limits as a client meets them: closed sessions, refused logins, subscriptions that are none."""

import json

from teg.simulator.thingsboard.rate_limits import RateLimits
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.stand_in_client import (
    ATTRIBUTES,
    TELEMETRY,
    PahoDevice,
    RawSocket,
    connect_packet,
    logged_in,
    publish_packet,
)


def batch(points: int) -> bytes:
    return json.dumps([{"ts": ts, "values": {"a": 1}} for ts in range(points)]).encode()


def test_publish_over_the_limit_closes_and_logins_are_refused_while_the_bucket_is_empty() -> None:
    with ThingsBoard(limits=ServerLimits(rate_limits="4:600")) as server:
        device = server.add_device("pi-07", token="T1")
        with logged_in(server.host, server.port) as raw:
            raw.send(publish_packet(TELEMETRY, b"{}") * 4)
            assert raw.rest() == b"\x40\x02\x00\x01" * 3
        assert device.sessions[0].close_reason == "rate limit: 0 data points"
        for _ in range(2):
            raw = RawSocket(server.host, server.port).send(connect_packet())
            assert raw.rest() == b"\x20\x02\x00\x03"
            raw.socket.close()
        server.limit(None)
        with logged_in(server.host, server.port):
            assert len(device.sessions) == 2


def test_batch_larger_than_the_bucket_never_passes() -> None:
    limits = RateLimits(telemetry_data_points="100:1")
    with ThingsBoard(limits=ServerLimits(rate_limits=limits)) as server:
        device = server.add_device("pi-07", token="T1")
        for _ in range(3):
            with logged_in(server.host, server.port) as raw:
                assert raw.send(publish_packet(TELEMETRY, batch(101))).rest() == b""
        with logged_in(server.host, server.port) as raw:
            assert raw.send(publish_packet(TELEMETRY, batch(100))).packet() == b"\x40\x02\x00\x01"
        assert len(device.telemetry()) == 100


def test_telemetry_and_attributes_share_the_limit_of_messages_with_data() -> None:
    limits = RateLimits(telemetry_messages="2:600")
    with ThingsBoard(limits=ServerLimits(rate_limits=limits)) as server:
        server.add_device("pi-07", token="T1")
        client = PahoDevice("T1").opened(server.host, server.port)
        client.publish(TELEMETRY, '{"a": 1}')
        client.publish(TELEMETRY, "{}")
        client.publish(ATTRIBUTES, '{"a": 1}')
        client.send(ATTRIBUTES, '{"a": 1}')
        client.wait_closed()
        client.close()


def test_subscribe_over_the_limit_is_granted_and_lost() -> None:
    with ThingsBoard() as server:
        device = server.add_device("pi-07", token="T1")
        client = PahoDevice("T1").opened(server.host, server.port)
        server.limit(RateLimits(messages="1:600"))
        client.publish(TELEMETRY, "{}")
        assert client.subscribe(ATTRIBUTES) == [1]
        device.set_shared({"a": 1})
        client.publish(TELEMETRY, '{"b": 1}')
        assert client.messages == []
        client.close()


def test_chunks_after_the_first_are_free() -> None:
    with ThingsBoard() as server:
        device = server.add_device("pi-07", token="T1")
        device.assign_software("ctl", "v1", bytes(1000))
        client = PahoDevice("T1").opened(server.host, server.port)
        server.limit(RateLimits(messages="1:600"))
        for number in range(5):
            client.publish(f"v2/sw/request/1/chunk/{number}", "200")
        client.send("v2/sw/request/2/chunk/0", "200")
        client.wait_closed()
        client.close()


def test_payload_limit_can_be_smaller() -> None:
    with ThingsBoard(limits=ServerLimits(max_payload_bytes=1000)) as server:
        server.add_device("pi-07", token="T1")
        with logged_in(server.host, server.port) as raw:
            raw.send(publish_packet(TELEMETRY, batch(10)))
            assert raw.packet() == b"\x40\x02\x00\x01"
            assert raw.send(publish_packet(TELEMETRY, batch(100))).rest() == b""
