"""When the network comes back: the kernel tells of interfaces, addresses and routes that appear (rtnetlink(7))."""

import select
import socket
import struct

from teg.domain.errors import Unavailable

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_HEADER = struct.Struct("=IHHII")
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 20, 24
_RUNNING, _LOOPBACK = 0x40, 0x8
_MAIN_TABLE = 254


class NetworkChanges:
    """`wait` from one thread; `close` from any other ends it."""

    def __init__(self) -> None:
        """
        Raises:
            Unavailable: this system does not let us listen (a sandbox without AF_NETLINK).
        """
        try:
            self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._kernel.bind((0, _GROUPS))
        except OSError as error:
            raise Unavailable(f"the kernel does not tell of the network's changes: {error}") from error
        self._ours, self._theirs = socket.socketpair()

    def wait(self) -> bool:
        """Wait for news. True: something came up; False: something else changed, or it is the end."""
        ready, _, _ = select.select([self._kernel, self._ours], [], [])
        if self._ours in ready:
            return False
        try:
            return came_up(self._kernel.recv(65_536))
        except OSError:  # ENOBUFS: so much happened that the kernel dropped some of it
            return True

    def close(self) -> None:
        self._theirs.send(b"x")

    def release(self) -> None:
        """After the last `wait`."""
        for sock in (self._kernel, self._ours, self._theirs):
            sock.close()


def came_up(news: bytes) -> bool:
    """True when one of the kernel's messages says that an interface runs, or that there is an address or a route."""
    while len(news) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(news)
        if length < _HEADER.size:
            return False
        if _is_good(kind, news[_HEADER.size : length]):
            return True
        news = news[(length + 3) & ~3 :]
    return False


def _is_good(kind: int, body: bytes) -> bool:
    if kind == _NEW_LINK and len(body) >= 12:
        (flags,) = struct.unpack_from("=I", body, 8)
        return bool(flags & _RUNNING) and not flags & _LOOPBACK
    if kind == _NEW_ROUTE and len(body) >= 5:
        return body[4] == _MAIN_TABLE
    return kind == _NEW_ADDRESS
