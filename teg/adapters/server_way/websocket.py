"""MQTT in a WebSocket (RFC 6455), as a stream of bytes that paho can take for a socket.

Frames are handed on piece by piece as they come, so that a frame of any length costs no memory; what is sent keeps its
place when the kernel takes only a part. paho's own wrapper does neither (decision 0077).
"""

import socket
import ssl
from contextlib import suppress
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from teg.adapters.server_way.deadline import Deadline
from teg.domain.server.connection_faults import UpgradeRefused, no_websocket_answers, upgrade_refused

#: Read from the socket, and put into one frame, at a time.
PIECE_BYTES = 64 << 10
#: MQTT has to be among them (MQTT 5, 6). Translators from WebSocket to TCP insist on "binary", and websockify does not
#: find it behind a blank: it stands first, servers take from the list what they know.
SUBPROTOCOLS = ["binary", "mqtt"]
_FULL = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class WebSocketStream:
    """Of one thread at a time, as paho uses its socket. Like a socket it is read and written without waiting."""

    def __init__(self, connection: socket.socket, where: str, path: str, deadline: Deadline) -> None:
        """The upgrade; `where` is what stands in the Host header.

        Raises:
            UpgradeRefused: with cause and remedy.
            OSError: the connection ended, or the answer took too long.
        """
        self._raw = connection
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._stands_for = 0  #: of what paho gave us, bytes whose frame has not wholly left
        self._ended = False
        try:
            deadline.send(connection, self._protocol.send(Request(host=where, target=path, subprotocols=SUBPROTOCOLS)))
            while not self._accepted(deadline.receive(connection, 4096), path):
                pass
        except ProtocolError as error:
            raise UpgradeRefused(no_websocket_answers(path)) from error

    def _accepted(self, data: bytes, path: str) -> bool:
        if not data:
            raise ConnectionResetError("the server closed the connection instead of answering the WebSocket upgrade")
        self._protocol.receive_data(data)
        accepted = False
        for event in self._protocol.events():
            if isinstance(event, RejectConnection):
                raise UpgradeRefused(upgrade_refused(event.status_code, path))
            if isinstance(event, AcceptConnection):
                accepted = True
            else:
                self._take(event)
        return accepted

    # --- as a socket

    def recv(self, most: int) -> bytes:
        """Raises BlockingIOError when there is nothing; empty at the end."""
        if not self._incoming and not self._ended:
            self._receive()
        if not self._incoming:
            if self._ended:
                return b""
            raise BlockingIOError
        found = bytes(self._incoming[:most])
        del self._incoming[:most]
        return found

    def send(self, data: bytes | bytearray) -> int:
        """How many of `data` have left; raises BlockingIOError until the frame that was begun for it is out.

        The caller comes back with the same `data` then, as for any socket that takes nothing now.
        """
        if not self._stands_for:
            piece = bytes(data[:PIECE_BYTES])
            self._outgoing += self._protocol.send(BytesMessage(piece))
            self._stands_for = len(piece)
        self._flush()
        sent, self._stands_for = self._stands_for, 0
        return sent

    def pending(self) -> int:
        """Bytes that are here already, of which `select` knows nothing."""
        inside = self._raw.pending() if isinstance(self._raw, ssl.SSLSocket) else 0
        return len(self._incoming) + inside + self._ended

    def close(self) -> None:
        """Says so where that costs no waiting."""
        with suppress(OSError, ProtocolError):
            self._outgoing += self._protocol.send(CloseConnection(code=1000))
            self._flush()
        self._raw.close()

    def fileno(self) -> int:
        return self._raw.fileno()

    def setblocking(self, flag: bool) -> None:
        self._raw.setblocking(flag)

    def settimeout(self, timeout_s: float | None) -> None:
        self._raw.settimeout(timeout_s)

    def getsockopt(self, *option: int) -> Any:
        return self._raw.getsockopt(*option)

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self._raw.setsockopt(level, name, value)

    # --- inside

    def _receive(self) -> None:
        data = self._raw.recv(PIECE_BYTES)
        if not data:
            self._ended = True
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events():  # of what is against the rules wsproto makes a CloseConnection
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, BytesMessage):
            self._incoming += event.data
        elif isinstance(event, Ping):
            self._answer(event.response())
        elif isinstance(event, CloseConnection):
            self._ended = True
            self._answer(event.response())
        elif isinstance(event, TextMessage):
            self._ended = True
            raise ConnectionAbortedError("the server sends text in its WebSocket: what speaks there is no MQTT")

    def _answer(self, event: Event) -> None:
        """Behind a frame that has not wholly left; with the next one at the latest."""
        self._outgoing += self._protocol.send(event)
        with suppress(*_FULL):
            self._flush()

    def _flush(self) -> None:
        while self._outgoing:
            sent = self._raw.send(self._outgoing)
            del self._outgoing[:sent]
