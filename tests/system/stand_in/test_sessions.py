"""Connecting, subscribing and being thrown out, over real sockets."""

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import next_n
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.stand_in_client import (
    ATTRIBUTES,
    RESPONSES,
    RPC,
    TELEMETRY,
    PahoDevice,
    RawSocket,
    connect_packet,
    eventually,
    logged_in,
    packet,
    publish_packet,
    subscribe_packet,
    text,
)

ACCEPTED = b"\x20\x02\x00\x00"
PING, PONG = b"\xc0\x00", b"\xd0\x00"


def answer_to(server: ThingsBoard, *packets: bytes) -> bytes:
    """All that the server says before it closes, or the first packet if it does not."""
    raw = RawSocket(server.host, server.port)
    try:
        return raw.send(*packets).packet()
    finally:
        raw.socket.close()


@pytest.mark.parametrize(
    ("connect", "code"),
    [
        (connect_packet("T1"), 0),
        (connect_packet("T1", client_id="anything"), 0),
        (connect_packet("wrong"), 5),
        (connect_packet("T1 "), 5),
        (connect_packet(None, client_id="unknown"), 2),
        (connect_packet(None), 5),
        (connect_packet(None, client_id=" "), 5),
        (connect_packet("T1", client_id="c", name="MQIsdp", level=3), 0),
        (connect_packet("wrong", client_id="c", name="MQIsdp", level=3), 5),
    ],
)
def test_connack_codes(server: ThingsBoard, device: Device, connect: bytes, code: int) -> None:
    raw = RawSocket(server.host, server.port).send(connect)
    assert raw.packet() == bytes((0x20, 2, 0, code))
    if code:
        assert raw.rest() == b""
    raw.socket.close()


@pytest.mark.parametrize(
    "first",
    [
        connect_packet("T1", level=6),
        connect_packet("T1", name="MQTTX"),
        connect_packet("T1", name="MQIsdp", level=3),
        connect_packet("T1", name="MQIsdp", level=3, client_id="c" * 24),
        connect_packet("T1", flags=0x03),
        packet(0x10, text("MQTT") + b"\x04"),
        b"\x10\xff\xff\xff\xff\xff",
        b"\x00\x00",
        b"\x82\x00",
        packet(0x80, b"\x00\x01" + text(RPC) + b"\x01"),
    ],
)
def test_what_is_no_connect_closes_without_connack(server: ThingsBoard, device: Device, first: bytes) -> None:
    raw = RawSocket(server.host, server.port).send(first)
    assert raw.rest() == b""
    raw.socket.close()


@pytest.mark.parametrize(
    ("configured", "user", "password", "client_id", "code"),
    [
        ({"user_name": "u", "password": "p"}, "u", "p", "any", 0),
        ({"user_name": "u", "password": "p"}, "u", "x", "any", 5),
        ({"user_name": "u"}, "u", "whatever", "any", 0),
        ({"client_id": "c", "user_name": "u", "password": "p"}, "u", "p", "c", 0),
        ({"client_id": "c", "user_name": "u", "password": "p"}, "u", "p", "other", 5),
        ({"client_id": "c"}, None, None, "c", 0),
        ({"client_id": "c"}, None, None, "other", 2),
    ],
)
def test_basic_credentials(
    server: ThingsBoard,
    configured: dict[str, str],
    user: str | None,
    password: str | None,
    client_id: str,
    code: int,
) -> None:
    server.add_basic_device("basic", **configured)
    client = PahoDevice(user, password, client_id).connect(server.host, server.port)
    client.wait(lambda: client.connacks, "CONNACK")
    eventually(lambda: server.packets.packets(name="CONNACK"))
    sent = server.device("basic").sessions
    assert len(sent) == (0 if code else 1)
    client.close()


def test_a_second_connect_is_accepted_once_more(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        raw.send(connect_packet("T1"), publish_packet(TELEMETRY, b'{"a": 1}', 7))
        assert raw.packet() == b"\x20\x02\x00\x00"
        assert raw.packet() == b"\x40\x02\x00\x07"
    assert len(device.sessions) == 1


def test_filters_of_the_gateway_api_are_granted_to_any_device(server: ThingsBoard, device: Device) -> None:
    client = PahoDevice("T1").opened(server.host, server.port)
    assert client.subscribe("v1/gateway/attributes", "v1/gateway/rpc", "v1/gateway/telemetry") == [1, 1, 0x80]
    client.close()


@pytest.mark.parametrize("clean", [True, False])
def test_session_present_is_the_opposite_of_clean_and_a_lie(server: ThingsBoard, device: Device, clean: bool) -> None:
    first = PahoDevice("T1", client_id="same", clean=clean).opened(server.host, server.port)
    first.subscribe(ATTRIBUTES)
    first.close()
    device.wait_disconnected()
    second = PahoDevice("T1", client_id="same", clean=clean).opened(server.host, server.port)
    assert second.connacks[0][1] is not clean
    device.set_shared({"a": 1})
    second.publish(TELEMETRY, "{}")
    assert second.messages == []
    second.close()


def test_newer_session_wins_whatever_the_client_ids(server: ThingsBoard, device: Device) -> None:
    first = PahoDevice("T1", client_id="one").opened(server.host, server.port)
    second = PahoDevice("T1", client_id="two").opened(server.host, server.port)
    first.wait_closed()
    second.publish(TELEMETRY, '{"a": 1}')
    assert [record.open for record in device.sessions] == [False, True]
    assert device.sessions[0].close_reason == "another session of the same device"
    assert device.connected
    first.close()
    second.close()


def test_same_client_id_of_two_devices_does_not_matter(server: ThingsBoard, device: Device) -> None:
    other = server.add_device("pi-08", token="T2")
    first = PahoDevice("T1", client_id="same").opened(server.host, server.port)
    second = PahoDevice("T2", client_id="same").opened(server.host, server.port)
    first.publish(TELEMETRY, "{}")
    second.publish(TELEMETRY, "{}")
    assert device.connected
    assert other.connected
    first.close()
    second.close()


def test_kick_closes_without_a_packet(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        device.kick()
        assert raw.rest() == b""
    assert not device.connected


def test_revoked_token_closes_and_is_refused_until_restored(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        credentials = device.revoke_token()
        assert raw.rest() == b""
    assert answer_to(server, connect_packet()) == b"\x20\x02\x00\x05"
    device.restore(credentials)
    assert answer_to(server, connect_packet()) == ACCEPTED


def test_deleted_device(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        server.delete_device("pi-07")
        assert raw.rest() == b""
    assert answer_to(server, connect_packet()) == b"\x20\x02\x00\x05"
    with pytest.raises(KeyError):
        server.device("pi-07")


def test_subscribe_takes_exact_strings_only(server: ThingsBoard, device: Device) -> None:
    filters = [
        (RPC, 2, 1),
        (ATTRIBUTES, 0, 0),
        (RESPONSES, 1, 1),
        ("#", 1, 0x80),
        ("+", 1, 0x80),
        ("v1/devices/me/#", 1, 0x80),
        ("v1/devices/me/attributes/response/1", 1, 0x80),
        ("v1/devices/me/rpc/request/#", 1, 0x80),
        ("v2/fw/response/+", 1, 0x80),
        (TELEMETRY, 1, 0x80),
        ("v2/sw/response/+/chunk/+", 1, 1),
        ("v2/fw/response/+/chunk/+", 2, 1),
        ("v2/fw/error", 1, 1),
        ("v2/a/j", 1, 1),
    ]
    with logged_in(server.host, server.port) as raw:
        raw.send(subscribe_packet(7, *[(name, qos) for name, qos, _ in filters]))
        assert raw.packet()[2:] == b"\x00\x07" + bytes(code for _, _, code in filters)
    assert device.sessions[0].subscriptions[RPC] == 1
    assert "#" in device.sessions[0].refused_filters


def test_ping_is_answered(server: ThingsBoard, device: Device) -> None:
    with logged_in(server.host, server.port) as raw:
        assert raw.send(PING).packet() == PONG
    assert device.sessions[0].pings == 1


def test_packets_before_the_connack_wait_for_it(server: ThingsBoard, device: Device) -> None:
    server.faults.connack_delay_s = 0.1
    raw = RawSocket(server.host, server.port)
    raw.send(connect_packet(), subscribe_packet(1, (RPC, 1)), publish_packet(TELEMETRY, b"{}", 2), PING)
    assert raw.take(15) == ACCEPTED + b"\x90\x03\x00\x01\x01" + b"\x40\x02\x00\x02" + PONG
    raw.socket.close()


def test_the_101st_packet_before_the_connack_closes(server: ThingsBoard, device: Device) -> None:
    server.faults.connack_delay_s = 30
    raw = RawSocket(server.host, server.port).send(connect_packet(), PING * 101)
    assert raw.rest() == b""
    raw.socket.close()
    assert device.sessions == []


def test_a_hundred_packets_before_the_connack_are_fine(server: ThingsBoard, device: Device) -> None:
    server.faults.connack_delay_s = 0.1
    raw = RawSocket(server.host, server.port).send(connect_packet(), PING * 100)
    assert raw.take(4 + 200) == ACCEPTED + PONG * 100
    raw.socket.close()


@pytest.mark.parametrize(
    "hostile",
    [
        packet(0x36, text(TELEMETRY) + b"\x00\x01{}"),
        publish_packet(TELEMETRY, b"{}", mid=0),
        publish_packet("v1/devices/me/+", b"{}"),
        packet(0x32, b"\x00\xff{}"),
        packet(0x80, b"\x00\x01" + text(RPC) + b"\x01"),
        packet(0x82, b"\x00\x01" + text(RPC) + b"\x03"),
        packet(0x82, b"\x00\x00" + text(RPC) + b"\x01"),
        packet(0xA0, b"\x00\x01" + text(RPC)),
        b"\x30\xff\xff\xff\xff\xff",
        b"\x30\x81\x80\x04",
        publish_packet("v1/devices/me/attributes/request/x", b"{}"),
        publish_packet("v1/devices/me/attributes/request/", b"{}"),
        publish_packet("v1/devices/me/attributes/request/2147483648", b"{}"),
        publish_packet("v1/devices/me/rpc/response/one", b"{}"),
        publish_packet("v1/devices/me/rpc/request/1.5", b'{"method": "m"}'),
    ],
)
def test_hostile_packet_closes_without_a_packet(server: ThingsBoard, device: Device, hostile: bytes) -> None:
    with logged_in(server.host, server.port) as raw:
        raw.send(hostile)
        assert raw.rest() == b""
    device.wait_disconnected()


def test_unsubscribe_ends_the_pushes(server: ThingsBoard, device: Device) -> None:
    client = PahoDevice("T1").opened(server.host, server.port)
    client.subscribe(ATTRIBUTES, RPC)
    client.client.unsubscribe([ATTRIBUTES, RPC])
    device.wait_for(lambda device: not device.subscriptions, 5)
    device.set_shared({"a": 1})
    assert device.rpc("ping", timeout_s=0.1).status == 504
    client.publish(TELEMETRY, "{}")
    assert client.messages == []
    client.close()


def test_inactivity_closes_and_a_ping_is_activity() -> None:
    with ThingsBoard(limits=ServerLimits(inactivity_timeout_s=0.3)) as server:
        device = server.add_device("pi-07", token="T1")
        with logged_in(server.host, server.port) as raw:
            raw.send(PING)
            assert raw.rest() == PONG
        assert device.sessions[0].close_reason == "inactivity"


def test_disconnect_is_noticed_and_what_follows_it_too(server: ThingsBoard, device: Device) -> None:
    client = PahoDevice("T1").opened(server.host, server.port)
    client.close()
    device.wait_disconnected()
    assert device.sessions[0].disconnected
    device.assert_quiet_after_disconnect()
    with logged_in(server.host, server.port) as raw:
        raw.send(b"\xe0\x00" + publish_packet(TELEMETRY, b'{"late": 1}'))
        assert raw.rest() == b""
    device.wait_disconnected()
    assert device.telemetry() == {}
    with pytest.raises(AssertionError, match="after DISCONNECT"):
        device.assert_quiet_after_disconnect()


def test_restart_closes_every_socket(server: ThingsBoard, device: Device) -> None:
    client = PahoDevice("T1").opened(server.host, server.port)
    server.restart()
    assert not device.connected
    client.wait_closed()
    client.close()
    again = PahoDevice("T1").opened(server.host, server.port)
    again.close()


def test_connection_is_refused_while_not_listening(server: ThingsBoard, device: Device) -> None:
    client = PahoDevice("T1").opened(server.host, server.port)
    server.stop_listening()
    client.wait_closed()
    client.close()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            RawSocket(server.host, server.port)
    server.start_listening()
    assert answer_to(server, connect_packet()) == ACCEPTED


def test_open_sessions_may_survive_the_listener(server: ThingsBoard, device: Device) -> None:
    client = PahoDevice("T1").opened(server.host, server.port)
    server.stop_listening(drop_connections=False)
    client.publish(TELEMETRY, '{"a": 1}')
    client.close()


def test_closed_on_accept(server: ThingsBoard, device: Device) -> None:
    server.faults.close_on_accept = next_n(2)
    for _ in range(2):
        raw = RawSocket(server.host, server.port)
        assert raw.rest() == b""
        raw.socket.close()
    assert answer_to(server, connect_packet()) == ACCEPTED


def test_refused_logins_then_accepted(server: ThingsBoard, device: Device) -> None:
    server.faults.connack_codes = [3, 3]
    answers = [answer_to(server, connect_packet()) for _ in range(3)]
    assert [answer[3] for answer in answers] == [3, 3, 0]


def test_mqtt_31_works_throughout(server: ThingsBoard, device: Device) -> None:
    client = PahoDevice("T1", client_id="old", version=MQTTProtocolVersion.MQTTv31)
    client.opened(server.host, server.port)
    assert client.subscribe(ATTRIBUTES) == [1]
    client.publish(TELEMETRY, '{"ts": 5, "values": {"a": 1}}')
    assert device.telemetry() == {("a", 5): 1}
    assert device.sessions[0].version == 3
    client.close()


def test_packet_log_is_bounded_and_can_be_off() -> None:
    for limit in (0, 3):
        with ThingsBoard(packet_log=limit) as server:
            server.add_device("pi-07", token="T1")
            client = PahoDevice("T1").opened(server.host, server.port)
            for _ in range(5):
                client.publish(TELEMETRY, "{}")
            assert len(server.packets.packets()) == limit
            client.close()


def test_packet_log_tells_both_directions(server: ThingsBoard, device: Device) -> None:
    client = PahoDevice("T1").opened(server.host, server.port)
    client.publish(TELEMETRY, "{}")
    client.close()
    device.wait_disconnected()
    seen = [(entry.direction, entry.name) for entry in server.packets.packets()]
    assert seen == [
        ("up", "CONNECT"),
        ("down", "CONNACK"),
        ("up", "PUBLISH"),
        ("down", "PUBACK"),
        ("up", "DISCONNECT"),
    ]
    assert [entry.topic for entry in server.packets.packets(name="PUBLISH")] == [TELEMETRY]


def test_two_devices_may_not_have_one_name(server: ThingsBoard, device: Device) -> None:
    with pytest.raises(ValueError, match="exists already"):
        server.add_device("pi-07")
