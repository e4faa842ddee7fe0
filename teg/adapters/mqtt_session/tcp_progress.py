"""How far TCP is with what was sent, as the kernel sees it; and when one message left this machine."""

import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from paho.mqtt.client import Client


class TcpProgress:
    """Of the connection whose socket `current` gives; None or an error where there is none."""

    def __init__(self, current: Callable[[], Any]) -> None:
        self._current = current
        self._moved_s = time.monotonic()
        self._acknowledged = 0

    def stalled_s(self) -> float:
        """Seconds since the kernel was last seen to get rid of bytes while more of them waited.

        A ping on an idle connection is no progress of what we sent: its PUBACKs are what is missing then.
        """
        now_s = time.monotonic()
        acknowledged, waiting = self.progress()
        if waiting and acknowledged != self._acknowledged:
            self._moved_s = now_s
        self._acknowledged = acknowledged
        return now_s - self._moved_s

    def progress(self) -> tuple[int, int]:
        """(bytes that the other side's TCP has acknowledged, bytes in our kernel that it has not)."""
        with suppress(OSError, AttributeError):  # the socket is gone: so is the connection
            return _tcp_progress(self._current())
        return self._acknowledged, 0


def _tcp_progress(sock: Any) -> tuple[int, int]:
    """Linux's tcp_info and SIOCOUTQ."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    (acknowledged,) = struct.unpack_from("Q", info, 120)
    (waiting,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    return acknowledged, waiting


def no_delay(_: Client, __: Any, sock: Any) -> None:
    """With one publish in flight, Nagle's algorithm costs a factor of 18."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Progress(Protocol):
    def progress(self) -> tuple[int, int]: ...

    def stalled_s(self) -> float: ...


class Departure:
    """When a message left this machine: its PUBACK is due only from then on.

    Made just before a message of `size` bytes is published: MQTT writes in order, so it goes behind what waits.

    What the network thread had not handed to the kernel yet is not seen, nor what TLS adds: the message seems to have
    left somewhat earlier then than it did.
    """

    def __init__(self, link: Progress, size: int) -> None:
        self._link = link
        self._began_s = time.monotonic()
        self._left_s: float | None = None
        self._end = sum(link.progress()) + size

    def quiet_s(self) -> float:
        """Seconds since the last byte moved, until the message is gone; since then, from there on."""
        now_s, stalled_s = time.monotonic(), self._link.stalled_s()
        if self._left_s is None and self._link.progress()[0] >= self._end:
            self._left_s = now_s
        quiet_s = stalled_s if self._left_s is None else now_s - self._left_s
        return min(quiet_s, now_s - self._began_s)
