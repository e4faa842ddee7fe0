"""The packet codec of the stand-in, against bytes written down from the standard."""

import pytest

from teg.simulator.thingsboard import mqtt_codec
from teg.simulator.thingsboard.mqtt_codec import V5, V31, V311, AckPacket, BarePacket, Frame, Malformed


def frames(data: bytes, limit: int = 65_536) -> list[Frame]:
    buffer, found = bytearray(data), []
    while frame := mqtt_codec.take_frame(buffer, limit):
        found.append(frame)
    return found


def body(*parts: bytes) -> bytes:
    return b"".join(parts)


def text(value: str) -> bytes:
    return len(value.encode()).to_bytes(2, "big") + value.encode()


@pytest.mark.parametrize(
    ("size", "header"), [(0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001")]
)
def test_remaining_length(size: int, header: str) -> None:
    packet = b"\x30" + bytes.fromhex(header) + bytes(size)
    (frame,) = frames(packet)
    assert (frame.kind, frame.flags, len(frame.body)) == (mqtt_codec.PUBLISH, 0, size)
    assert frames(packet[:-1]) == []


def test_frames_are_cut_one_after_the_other_and_the_rest_stays() -> None:
    buffer = bytearray(b"\xc0\x00\xe0\x00\x30")
    assert mqtt_codec.take_frame(buffer, 10) == Frame(mqtt_codec.PINGREQ, 0, b"")
    assert mqtt_codec.take_frame(buffer, 10) == Frame(mqtt_codec.DISCONNECT, 0, b"")
    assert mqtt_codec.take_frame(buffer, 10) is None
    assert buffer == b"\x30"


@pytest.mark.parametrize("data", [b"\x30\xff\xff\xff\xff", b"\x30\x0b", b"\x00\x00", b"\x80\x00", b"\x60\x00"])
def test_broken_headers(data: bytes) -> None:
    with pytest.raises(Malformed):
        frames(data, limit=10)


@pytest.mark.parametrize(("name", "version"), [("MQIsdp", V31), ("MQTT", V311), ("MQTT", V5)])
def test_connect_with_everything(name: str, version: int) -> None:
    properties = b"\x05\x11\x00\x00\x00\x0a" if version == V5 else b""
    will_properties = b"\x00" if version == V5 else b""
    packet = body(
        text(name),
        bytes((version, 0xC6)),
        b"\x00\x3c",
        properties,
        text("client"),
        will_properties,
        text("will/topic"),
        text("will message"),
        text("user"),
        text("pass"),
    )
    connect = mqtt_codec.parse_connect(packet)
    assert connect == mqtt_codec.Connect(version, "client", "user", b"pass", True, 60)


def test_connect_with_nothing() -> None:
    connect = mqtt_codec.parse_connect(text("MQTT") + b"\x04\x00\x00\x00" + text(""))
    assert connect == mqtt_codec.Connect(V311, "", None, None, False, 0)


@pytest.mark.parametrize(
    "packet",
    [
        text("MQTT") + b"\x03\x02\x00\x3c" + text("c"),
        text("mqtt") + b"\x04\x02\x00\x3c" + text("c"),
        text("MQIsdp") + b"\x03\x02\x00\x3c" + text(""),
        text("MQIsdp") + b"\x03\x02\x00\x3c" + text("c" * 24),
        text("MQTT") + b"\x04\x03\x00\x3c" + text("c"),
        text("MQTT") + b"\x04\x82\x00\x3c" + text("c"),
        text("MQTT") + b"\x05\x02\x00\x3c\x80\x80\x80\x80\x01" + text("c"),
    ],
)
def test_connect_that_netty_cannot_decode(packet: bytes) -> None:
    with pytest.raises(Malformed):
        mqtt_codec.parse_connect(packet)


def test_publish() -> None:
    frame = Frame(mqtt_codec.PUBLISH, 0b1011, text("a/b") + b"\x00\x07payload")
    assert mqtt_codec.decode(frame, V311) == mqtt_codec.PublishPacket("a/b", b"payload", 1, True, True, 7)
    frame = Frame(mqtt_codec.PUBLISH, 0, text("a/b") + b"\x02\x01\x00payload")
    assert mqtt_codec.decode(frame, V5) == mqtt_codec.PublishPacket("a/b", b"payload", 0, False, False, 0)


def test_subscribe_and_unsubscribe_in_both_dialects() -> None:
    subscribe = Frame(mqtt_codec.SUBSCRIBE, 2, b"\x00\x01" + text("a") + b"\x01" + text("b") + b"\x00")
    assert mqtt_codec.decode(subscribe, V311) == mqtt_codec.SubscribePacket(1, (("a", 1), ("b", 0)))
    subscribe = Frame(mqtt_codec.SUBSCRIBE, 2, b"\x00\x01\x02\x0b\x01" + text("a") + b"\x2d")
    assert mqtt_codec.decode(subscribe, V5) == mqtt_codec.SubscribePacket(1, (("a", 1),))
    unsubscribe = Frame(mqtt_codec.UNSUBSCRIBE, 2, b"\x00\x01" + text("a") + text("b"))
    assert mqtt_codec.decode(unsubscribe, V311) == mqtt_codec.UnsubscribePacket(1, ("a", "b"))


@pytest.mark.parametrize("kind", [mqtt_codec.PUBACK, mqtt_codec.PUBREC, mqtt_codec.PUBREL, mqtt_codec.PUBCOMP])
def test_acknowledgements_carry_an_id(kind: int) -> None:
    assert mqtt_codec.decode(Frame(kind, 0, b"\x01\x02"), V311) == AckPacket(kind, 0x0102)


def test_auth_exists_in_mqtt_5_only() -> None:
    assert mqtt_codec.decode(Frame(mqtt_codec.AUTH, 0, b""), V5) == BarePacket(mqtt_codec.AUTH)
    with pytest.raises(Malformed):
        mqtt_codec.decode(Frame(mqtt_codec.AUTH, 0, b""), V311)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (mqtt_codec.connack(V311, 5), "20020005"),
        (mqtt_codec.connack(V311, 0, True), "20020100"),
        (mqtt_codec.connack(V5, 0x87), "2003008700"),
        (mqtt_codec.puback(V311, 7, 0x99), "40020007"),
        (mqtt_codec.puback(V5, 7), "40020007"),
        (mqtt_codec.puback(V5, 7, 0x99), "4003000799"),
        (mqtt_codec.suback(V311, 7, [1, 0x80]), "900400070180"),
        (mqtt_codec.suback(V5, 7, [1]), "900400070001"),
        (mqtt_codec.unsuback(V311, 7, [0]), "b0020007"),
        (mqtt_codec.unsuback(V5, 7, [0, 0x11]), "b0050007000011"),
        (mqtt_codec.publish(V311, "a", b"xy", 0, 9), "300500016178 79".replace(" ", "")),
        (mqtt_codec.publish(V311, "a", b"x", 1, 9), "32060001610009 78".replace(" ", "")),
        (mqtt_codec.publish(V5, "a", b"x", 1, 9), "3207000161000900 78".replace(" ", "")),
        (mqtt_codec.publish(V311, "a", b"", 1, 65_536), "32050001610000"),
        (mqtt_codec.disconnect(0x8E), "e0028e00"),
    ],
)
def test_packets_to_the_client(packet: bytes, expected: str) -> None:
    assert packet.hex() == expected


def test_large_downlink_has_no_limit() -> None:
    packet = mqtt_codec.publish(V311, "a", bytes(1_000_000), 0, 1)
    (frame,) = frames(packet, limit=2_000_000)
    assert len(frame.body) == 1_000_003
