"""paho's client with a bound on what it reads: a server may announce 256 MiB, and paho makes room for all of it."""

import logging
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

#: A file's content is at most 1 MiB, and a request asks for few at once; everything else is far smaller.
MAX_PACKET_BYTES = 8 << 20
_PIECE_BYTES = 64 << 10
#: Of a packet that is left out, this much is looked at: topic and packet id.
_HEAD_BYTES = 4 << 10
_PUBLISH = 3
_SAY_AGAIN_S = 600.0
#: paho's own turn is a second.
LEAST_TURN_S, MOST_TURN_S, TURNS_A_KEEPALIVE = 0.2, 5.0, 6

logger = logging.getLogger("gateway.mqtt")


class Stream(Protocol):
    """As much of a socket as paho needs; `pending` is asked where there is one."""

    def recv(self, most: int, /) -> bytes: ...
    def send(self, data: bytes | bytearray, /) -> int: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...


class BoundedClient(Client):
    """A larger packet is read past, piece by piece, acknowledged so that it does not come again, and said.

    The connection stays: a tenant could otherwise keep the gateway off the server with one attribute.
    """

    _head = b""
    _said_s: float | None = None
    #: What TLS said when it ended the connection: a server's word about our certificate comes after the handshake.
    fault = ""
    #: Called whenever the network thread has gone round.
    on_turn: Callable[[], None] = staticmethod(lambda: None)

    def loop_misc(self) -> MQTTErrorCode:
        self.on_turn()
        return super().loop_misc()

    def loop_forever(self, timeout: float | None = None, retry_first_connection: bool = False) -> MQTTErrorCode:
        """Packets wake the network thread by themselves; it turns only to see whether a ping is due or missing."""
        turn_s = min(MOST_TURN_S, max(LEAST_TURN_S, self.keepalive / TURNS_A_KEEPALIVE))
        return super().loop_forever(turn_s if timeout is None else timeout, retry_first_connection)

    def loop_stop(self) -> MQTTErrorCode:
        """The thread sees only after its turn that it is to end."""
        self._thread_terminate = True
        if (waker := self._sockpairW) is not None:
            with suppress(OSError):  # it has ended already
                waker.send(b"\0")
        return super().loop_stop()

    def _sock_recv(self, bufsize: int) -> bytes:
        """paho asks the socket for all of a packet at once, and Python makes room for what is asked for."""
        if self._is_too_large() and bufsize > 1:
            raise BlockingIOError  # back to `_packet_read`, which knows what to do with the rest
        try:
            return super()._sock_recv(min(bufsize, _PIECE_BYTES))
        except ssl.SSLError as error:
            self.fault = str(error)
            raise

    def _packet_read(self) -> MQTTErrorCode:
        return self._read_past() if self._is_too_large() else super()._packet_read()

    def _is_too_large(self) -> bool:
        packet = self._in_packet
        return bool(packet["have_remaining"]) and packet["remaining_length"] > MAX_PACKET_BYTES

    def _read_past(self) -> MQTTErrorCode:
        packet = self._in_packet
        try:
            data = super()._sock_recv(min(packet["to_process"], _PIECE_BYTES))
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_AGAIN
        except OSError as error:
            logger.debug("receiving failed: %s", error)
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        if not data:
            return MQTTErrorCode.MQTT_ERR_CONN_LOST
        self._head += data[: _HEAD_BYTES - len(self._head)]
        packet["to_process"] -= len(data)
        self._last_bytes_received = time.monotonic()
        return self._finish() if packet["to_process"] == 0 else MQTTErrorCode.MQTT_ERR_SUCCESS

    def _finish(self) -> MQTTErrorCode:
        packet = self._in_packet
        command, size, head, self._head = packet["command"], packet["remaining_length"], self._head, b""
        packet["command"] = packet["have_remaining"] = packet["remaining_length"] = 0
        packet["remaining_count"], packet["remaining_mult"] = [], 1
        length = int.from_bytes(head[:2], "big")
        is_publish, qos = command >> 4 == _PUBLISH, command >> 1 & 3
        self._say(size, head[2 : 2 + length] if is_publish else b"")
        if not is_publish or qos != 1 or len(head) < length + 4:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return self._send_puback(int.from_bytes(head[2 + length : 4 + length], "big"))

    def _say(self, size: int, topic: bytes) -> None:
        now_s = time.monotonic()
        if self._said_s is None or now_s - self._said_s > _SAY_AGAIN_S:
            self._said_s = now_s
            logger.warning(
                "a message of %d MiB on %r was not taken: nothing larger than %d MiB is",
                size >> 20,
                topic[:200].decode(errors="replace"),
                MAX_PACKET_BYTES >> 20,
            )


def client_through(open_way: Callable[[float], Stream]) -> type[BoundedClient]:
    """A kind of client that gets to the server by `open_way`, which is given the seconds that it may take."""

    class ClientThrough(BoundedClient):
        def _create_socket(self) -> Any:
            return open_way(self.connect_timeout)

    return ClientThrough
