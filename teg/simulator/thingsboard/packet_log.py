"""The last packets on the wire, in both directions, with their times."""

from collections import deque
from dataclasses import dataclass
from typing import Literal

from teg.simulator.thingsboard import mqtt_codec

#: up = from the client to the server.
Direction = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class Packet:
    """`time_s` is monotonic. `device` is empty before the client has said who it is."""

    time_s: float
    direction: Direction
    connection: int
    device: str
    name: str
    topic: str
    size_bytes: int


class PacketLog:
    """Bounded to `limit` packets; a limit of 0 turns it off."""

    def __init__(self, limit: int) -> None:
        self.enabled = limit > 0
        self._packets: deque[Packet] = deque(maxlen=limit)

    def add(self, packet: Packet) -> None:
        if self.enabled:
            self._packets.append(packet)

    def packets(self, *, device: str | None = None, name: str | None = None) -> list[Packet]:
        """A copy, oldest first. `name` is that of the packet type, such as "PUBACK"."""
        return [
            packet for packet in self._packets.copy() if device in (None, packet.device) and name in (None, packet.name)
        ]


def describe(packet: bytes) -> tuple[str, str]:
    """(type name, topic) of a packet we are about to write; the topic is empty for all but PUBLISH."""
    kind = packet[0] >> 4
    if kind != mqtt_codec.PUBLISH:
        return mqtt_codec.NAMES[kind], ""
    start = next(index for index in range(1, 5) if packet[index] < 0x80) + 1
    length = int.from_bytes(packet[start : start + 2], "big")
    return "PUBLISH", packet[start + 2 : start + 2 + length].decode()
