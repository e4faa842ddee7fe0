"""What a connection puts on the wire, as the kernel counts it: TLS, TCP and IP included."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

#: Of each segment: TCP's header with time stamps, and IP's.
TCP_HEADER, IP_HEADER = 32, {socket.AF_INET: 20, socket.AF_INET6: 40}


class WireBytes:
    """Hands on what was sent and received since the last look; from any thread."""

    def __init__(self, current: Callable[[], Any], count: Callable[[int, int], None]) -> None:
        """`current` gives the connection's socket, None where there is none."""
        self._current = current
        self._count = count
        self._lock = threading.Lock()
        self._before = (0, 0)

    def look(self, sock: Any = None) -> None:
        """`sock`: one that is about to be closed."""
        with suppress(OSError, AttributeError, ValueError):  # it is gone: what it carried since the last look is unseen
            self._take(_wire_bytes(self._current() if sock is None else sock))

    def _take(self, total: tuple[int, int]) -> None:
        with self._lock:
            sent, received = (now - before for now, before in zip(total, self._before, strict=True))
            self._before = total
        if sent or received:
            self._count(sent, received)


def _wire_bytes(sock: Any) -> tuple[int, int]:
    """Linux's tcp_info: bytes with what was repeated, and segments, in both directions."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    acknowledged, received, segments_out, segments_in = struct.unpack_from("QQII", info, 120)
    sent = struct.unpack_from("Q", info, 200)[0] if len(info) >= 208 else acknowledged
    header = TCP_HEADER + IP_HEADER.get(getattr(sock, "family", socket.AF_INET), IP_HEADER[socket.AF_INET])
    return sent + segments_out * header, received + segments_in * header
