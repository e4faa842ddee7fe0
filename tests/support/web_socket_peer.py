"""The server's side of a WebSocket, written by hand so that it can also do what no library would."""

import base64
import hashlib
import socket

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, TEXT, CONTINUATION, CLOSE, PING, PONG = 2, 1, 0, 8, 9, 10


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _exactly(connection, 1)
    return head


def accept(connection: socket.socket) -> dict[str, str]:
    """The headers of the request, after the answer to it."""
    lines = read_head(connection).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    digest = hashlib.sha1(headers["sec-websocket-key"].encode() + _GUID, usedforsecurity=False).digest()
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
    return {**headers, "path": lines[0].split()[1]}


def head(opcode: int, length: int, last: bool = True) -> bytes:
    first = bytes([(0x80 if last else 0) | opcode])
    if length < 126:
        return first + bytes([length])
    return first + (b"\x7e" + length.to_bytes(2, "big") if length < 65536 else b"\x7f" + length.to_bytes(8, "big"))


def frame(opcode: int, payload: bytes, last: bool = True) -> bytes:
    return head(opcode, len(payload), last) + payload


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    """(opcode, payload) of a frame of the client, which has to be masked."""
    first, second = _exactly(connection, 2)
    assert second & 0x80, "not masked"
    length = second & 0x7F
    if length >= 126:
        length = int.from_bytes(_exactly(connection, 2 if length == 126 else 8), "big")
    mask = _exactly(connection, 4)
    masked = _exactly(connection, length)
    return first & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        if not (part := connection.recv(count - len(data))):
            raise ConnectionError("closed by the client")
        data += part
    return bytes(data)
