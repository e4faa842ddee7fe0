"""One TCP connection: bytes to packets, the login, the queue before the CONNACK, and the ways to end it."""

import asyncio
import socket
import struct
import time
from collections import deque
from typing import Protocol, cast

from teg.simulator.thingsboard import credentials, mqtt_codec
from teg.simulator.thingsboard.core import Connection as OpenConnection
from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.credentials import LoginRefused
from teg.simulator.thingsboard.mqtt_codec import V5, V311, Connect, Frame, Malformed
from teg.simulator.thingsboard.packet_log import Direction, Packet, describe

#: Packets a client may send before its CONNACK.
MAX_EARLY_PACKETS = 100


class Session(Protocol):
    """What happens on a connection once its login was accepted."""

    @property
    def name(self) -> str: ...
    def handle(self, packet: mqtt_codec.Packet) -> None: ...
    def closed(self, reason: str) -> None:
        """The connection is gone or going. Harmless twice."""
        ...

    def end(self, reason: str, code: int) -> None:
        """Close from the server's side; `code` is the DISCONNECT reason that only MQTT 5 gets to see."""
        ...


class Login(Protocol):
    """Decides on a CONNECT. Raise `LoginRefused`, or return the session that is open from now on."""

    def __call__(self, connection: OpenConnection, connect: Connect) -> Session: ...


class ClientConnection(asyncio.Protocol):
    def __init__(self, core: Core, login: Login) -> None:
        core.connections += 1
        self.number = core.connections
        self._core = core
        self._login = login
        self._buffer = bytearray()
        self._early: deque[mqtt_codec.Packet] = deque()
        self._session: Session | None = None
        self._transport: asyncio.Transport | None = None
        self._version = V311
        self._connect_seen = False
        self._closing = ""
        self.active_s = time.monotonic()

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._core.open_connections.add(self)
        if self._core.faults.stop_reading:
            self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.active_s = time.monotonic()
        if self._closing:
            return
        self._buffer += data
        try:
            self._take_frames()
        except Malformed as error:
            self._end(f"malformed: {error}", 0x81)
        self._core.changes.notify()

    def connection_lost(self, exc: Exception | None) -> None:
        self._core.open_connections.discard(self)
        reason = self._closing or (f"connection lost: {exc}" if exc else "client closed the connection")
        self._closing = reason
        if self._session is not None:
            self._session.closed(reason)
        self._core.changes.notify()

    # --- what sessions may do

    @property
    def fingerprint(self) -> str:
        """Of the client's certificate; empty where it showed none."""
        encrypted = self._transport and self._transport.get_extra_info("ssl_object")
        return credentials.fingerprint_of(encrypted.getpeercert(binary_form=True) or b"") if encrypted else ""

    @property
    def can_send(self) -> bool:
        return not self._closing and not self._core.faults.freeze

    @property
    def has_unread_packets(self) -> bool:
        return bool(self._buffer)

    def send(self, packet: bytes) -> bool:
        """Write the packet; False if it cannot reach the client any more."""
        if self._transport is None or not self.can_send:
            return False
        self._log("down", *describe(packet), len(packet))
        self._transport.write(packet)
        return True

    def close(self, reason: str, code: int | None = None) -> None:
        """Close without a packet; MQTT 5 sends a DISCONNECT with `code` first."""
        faults = self._core.faults
        if self._closing or self._transport is None or faults.never_close:
            return
        if code is not None and self._version == V5 and not faults.hide_reasons:
            self.send(mqtt_codec.disconnect(code))
        self._closing = reason
        self._transport.close()

    def reset(self, reason: str) -> None:
        """End with a TCP reset instead of a regular close."""
        if self._transport is None:
            return
        self._closing = self._closing or reason
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def abort(self, reason: str) -> None:
        """Drop the connection at once, whatever is still to be written."""
        self._closing = self._closing or reason
        if self._transport is not None:
            self._transport.abort()

    def pause(self, paused: bool) -> None:
        """Stop or go on reading from the socket."""
        if self._transport is not None and not self._closing:
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    # --- packets

    def _take_frames(self) -> None:
        limit = self._core.limits.max_payload_bytes
        while not self._closing and (frame := mqtt_codec.take_frame(self._buffer, limit)):
            self._log("up", mqtt_codec.NAMES[frame.kind], _topic(frame), len(frame.body))
            if not self._core.faults.freeze:
                self._take(mqtt_codec.decode(frame, self._version))

    def _take(self, packet: mqtt_codec.Packet) -> None:
        if self._session is not None:
            self._session.handle(packet)
        elif isinstance(packet, Connect) and not self._connect_seen:
            self._connect_seen = True
            self._delay_login(packet)
        else:
            self._keep_for_later(packet)

    def _keep_for_later(self, packet: mqtt_codec.Packet) -> None:
        self._early.append(packet)
        if len(self._early) > MAX_EARLY_PACKETS:
            self.close("too many packets before the CONNACK", 0x97)

    def _delay_login(self, connect: Connect) -> None:
        self._version = connect.version
        delay_s = self._core.faults.connack_delay_s
        if delay_s:
            self._core.later(delay_s, lambda: self._log_in(connect))
        else:
            self._log_in(connect)

    def _log_in(self, connect: Connect) -> None:
        if self._closing:
            return
        try:
            session = self._login(self, connect)
        except LoginRefused as refusal:
            self._refuse(refusal.code)
        else:
            self._accept(session, connect)

    def _accept(self, session: Session, connect: Connect) -> None:
        """Session-present is a lie here: nothing is ever kept, whatever the clean flag says."""
        self._session = session
        present = not connect.clean and not self._core.faults.tell_no_session_present
        self.send(mqtt_codec.connack(connect.version, credentials.ACCEPTED, present))
        while self._early and not self._closing:
            session.handle(self._early.popleft())

    def _refuse(self, code: int) -> None:
        self.send(mqtt_codec.connack(self._version, code))
        self.close(f"CONNACK {code:#04x}", code if self._version == V5 else None)

    def _end(self, reason: str, code: int) -> None:
        if self._session is not None:
            self._session.end(reason, code)
        else:
            self.close(reason, code if self._connect_seen else None)

    def _log(self, direction: Direction, name: str, topic: str, size_bytes: int) -> None:
        if self._core.packets.enabled:
            device = self._session.name if self._session else ""
            self._core.packets.add(Packet(time.monotonic(), direction, self.number, device, name, topic, size_bytes))


def _topic(frame: Frame) -> str:
    """For the log only: the topic of a PUBLISH, as far as it can be read."""
    if frame.kind != mqtt_codec.PUBLISH:
        return ""
    length = int.from_bytes(frame.body[:2], "big")
    return frame.body[2 : 2 + length].decode("utf-8", "replace")
