"""MQTT 3.1, 3.1.1 and 5.0 control packets as bytes: what the stand-in reads and what it writes.

Source: OASIS MQTT 3.1.1 and 5.0, chapters 2 and 3. Where the standard leaves room, or a server may be
strict or lenient, this follows the codec that ThingsBoard uses (Netty's MqttDecoder).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)

# fmt: off
NAMES = (
    "RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)
# fmt: on

V31, V311, V5 = 3, 4, 5
_PROTOCOLS = {("MQIsdp", 3): V31, ("MQTT", 4): V311, ("MQTT", 5): V5}
#: Packets whose fixed-header flags must be 0b0010 (MQTT 3.1.1, 2.2.2).
_FLAGS_0010 = frozenset({PUBREL, SUBSCRIBE, UNSUBSCRIBE})

PINGRESP_PACKET = b"\xd0\x00"


class Malformed(Exception):  # noqa: N818 - what the packet is
    """Bytes that are no MQTT packet, or one larger than the server takes: the socket gets closed."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One control packet, not yet understood: type, flag bits, and all bytes after the fixed header."""

    kind: int
    flags: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    kind: ClassVar[int] = CONNECT
    version: int
    client_id: str
    user_name: str | None
    password: bytes | None
    clean: bool
    keep_alive_s: int


@dataclass(frozen=True, slots=True)
class PublishPacket:
    """`mid` is 0 for QoS 0."""

    kind: ClassVar[int] = PUBLISH
    topic: str
    payload: bytes
    qos: int
    dup: bool
    retain: bool
    mid: int


@dataclass(frozen=True, slots=True)
class SubscribePacket:
    kind: ClassVar[int] = SUBSCRIBE
    mid: int
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class UnsubscribePacket:
    kind: ClassVar[int] = UNSUBSCRIBE
    mid: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AckPacket:
    """PUBACK, PUBREC, PUBREL or PUBCOMP; a packet id of 0 is let through, as on the real server."""

    kind: int
    mid: int


@dataclass(frozen=True, slots=True)
class BarePacket:
    """A packet whose type says it all, or that a client has no business to send."""

    kind: int


Packet = Connect | PublishPacket | SubscribePacket | UnsubscribePacket | AckPacket | BarePacket


def take_frame(buffer: bytearray, limit: int) -> Frame | None:
    """Cut the first whole packet off `buffer`, or return None until more bytes have come.

    `limit` is compared with the remaining length as soon as the header is there, as Netty does.
    """
    header = _header_length(buffer)
    if header is None:
        return None
    end, start = header
    if end - start > limit:
        raise Malformed(f"packet of {end - start} bytes, more than {limit}")
    if len(buffer) < end:
        return None
    kind, flags = buffer[0] >> 4, buffer[0] & 0x0F
    body = bytes(memoryview(buffer)[start:end])
    del buffer[:end]
    _check_flags(kind, flags)
    return Frame(kind, flags, body)


def _header_length(buffer: bytearray) -> tuple[int, int] | None:
    """(end of packet, end of fixed header), or None while the remaining length is incomplete."""
    length = 0
    for index in range(1, 5):
        if index >= len(buffer):
            return None
        length |= (buffer[index] & 0x7F) << (7 * (index - 1))
        if buffer[index] < 0x80:
            return index + 1 + length, index + 1
    raise Malformed("remaining length of more than four bytes")


def _check_flags(kind: int, flags: int) -> None:
    if kind == 0:
        raise Malformed("packet type 0")
    if kind in _FLAGS_0010 and flags != 0b0010:
        raise Malformed(f"{NAMES[kind]} with flags {flags:#06b}")


class _Reader:
    """Reads the fields of one packet body; every read past the end is `Malformed`."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def take(self, size: int) -> bytes:
        start, self.at = self.at, self.at + size
        if self.at > len(self.body):
            raise Malformed("packet ends inside a field")
        return self.body[start : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        """Invalid UTF-8 is replaced, not refused: Netty decodes that way."""
        return self.binary().decode("utf-8", "replace")

    def rest(self) -> bytes:
        return self.take(len(self.body) - self.at)

    def skip_properties(self, version: int) -> None:
        if version != V5:
            return
        length = shift = 0
        while True:
            byte = self.number(1)
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 21:
                raise Malformed("property length of more than four bytes")
        self.take(length)

    @property
    def finished(self) -> bool:
        return self.at >= len(self.body)


def decode(frame: Frame, version: int) -> Packet:
    """Understand the packet, or raise `Malformed`. `version` is that of the connection so far."""
    if frame.kind == CONNECT:
        return parse_connect(frame.body)
    if frame.kind == PUBLISH:
        return parse_publish(frame, version)
    if frame.kind == SUBSCRIBE:
        return parse_subscribe(frame, version)
    if frame.kind == UNSUBSCRIBE:
        return parse_unsubscribe(frame, version)
    if PUBACK <= frame.kind <= PUBCOMP:
        return AckPacket(frame.kind, _Reader(frame.body).number(2))
    if frame.kind == AUTH and version != V5:
        raise Malformed("AUTH before MQTT 5")
    return BarePacket(frame.kind)


def parse_connect(body: bytes) -> Connect:
    """Raise `Malformed` for what Netty cannot decode: the client then gets no CONNACK."""
    reader = _Reader(body)
    protocol = (reader.text(), reader.number(1))
    if protocol not in _PROTOCOLS:
        raise Malformed(f"unknown protocol {protocol}")
    version = _PROTOCOLS[protocol]
    flags, keep_alive_s = reader.number(1), reader.number(2)
    if version != V31 and flags & 0x01:
        raise Malformed("reserved CONNECT flag is set")
    reader.skip_properties(version)
    client_id = reader.text()
    if version == V31 and not 1 <= len(client_id) <= 23:
        raise Malformed("MQTT 3.1 client id of other than 1 to 23 characters")
    if flags & 0x04:
        _skip_will(reader, version)
    user_name = reader.text() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    return Connect(version, client_id, user_name, password, bool(flags & 0x02), keep_alive_s)


def _skip_will(reader: _Reader, version: int) -> None:
    reader.skip_properties(version)
    reader.binary()
    reader.binary()


def parse_publish(frame: Frame, version: int) -> PublishPacket:
    flags, reader = frame.flags, _Reader(frame.body)
    qos = flags >> 1 & 0x03
    if qos == 3:
        raise Malformed("PUBLISH with QoS 3")
    topic = reader.text()
    if "+" in topic or "#" in topic:
        raise Malformed(f"PUBLISH to a topic with a wildcard: {topic!r}")
    mid = _packet_id(reader) if qos else 0
    reader.skip_properties(version)
    return PublishPacket(topic, reader.rest(), qos, bool(flags & 8), bool(flags & 1), mid)


def parse_subscribe(frame: Frame, version: int) -> SubscribePacket:
    reader = _Reader(frame.body)
    mid = _packet_id(reader)
    reader.skip_properties(version)
    filters = []
    while not reader.finished:
        topic, options = reader.text(), reader.number(1)
        if options & 0x03 == 3:
            raise Malformed("SUBSCRIBE with QoS 3")
        filters.append((topic, options & 0x03))
    return SubscribePacket(mid, tuple(filters))


def parse_unsubscribe(frame: Frame, version: int) -> UnsubscribePacket:
    reader = _Reader(frame.body)
    mid = _packet_id(reader)
    reader.skip_properties(version)
    filters = []
    while not reader.finished:
        filters.append(reader.text())
    return UnsubscribePacket(mid, tuple(filters))


def _packet_id(reader: _Reader) -> int:
    mid = reader.number(2)
    if mid == 0:
        raise Malformed("packet id 0")
    return mid


def connack(version: int, code: int, session_present: bool = False) -> bytes:
    properties = b"\x00" if version == V5 else b""
    return _packet(CONNACK, 0, bytes((session_present, code)) + properties)


def puback(version: int, mid: int, reason: int = 0) -> bytes:
    """`reason` travels only in MQTT 5; earlier versions cannot say that anything was wrong."""
    tail = bytes((reason,)) if version == V5 and reason else b""
    return _packet(PUBACK, 0, _u16(mid) + tail)


def suback(version: int, mid: int, codes: Iterable[int]) -> bytes:
    properties = b"\x00" if version == V5 else b""
    return _packet(SUBACK, 0, _u16(mid) + properties + bytes(codes))


def unsuback(version: int, mid: int, codes: Iterable[int]) -> bytes:
    tail = b"\x00" + bytes(codes) if version == V5 else b""
    return _packet(UNSUBACK, 0, _u16(mid) + tail)


def publish(version: int, topic: str, payload: bytes, qos: int, mid: int) -> bytes:
    name = topic.encode()
    head = _u16(len(name)) + name + (_u16(mid) if qos else b"")
    properties = b"\x00" if version == V5 else b""
    return _packet(PUBLISH, qos << 1, head + properties + payload)


def disconnect(reason: int) -> bytes:
    """MQTT 5 only: before that a server has no such packet and just closes."""
    return _packet(DISCONNECT, 0, bytes((reason, 0)))


def _packet(kind: int, flags: int, body: bytes) -> bytes:
    return bytes((kind << 4 | flags,)) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _u16(value: int) -> bytes:
    """Two bytes; what is over 65,535 wraps, as the server's downlink ids do."""
    return (value & 0xFFFF).to_bytes(2, "big")
