"""The listening socket: accepts clients, does the TLS handshake, and can go away and come back."""

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

from simulator.connection import Connection

if TYPE_CHECKING:
    from simulator.core import Core

HANDSHAKE_TIMEOUT_S = 30.0


class Listener:
    """While not listening the port stays bound, so that connecting is refused and nobody else takes it."""

    def __init__(self, core: "Core", host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._core = core
        self._tls = tls
        self._socket = _bound(host, port)
        self._accepting: asyncio.Task[None] | None = None
        self._admitting: set[asyncio.Task[None]] = set()
        self.host, self.port = self._socket.getsockname()[:2]
        self.handshake_failures: list[str] = []

    async def open(self) -> None:
        if self._accepting is None:
            self._socket.listen(128)
            self._accepting = asyncio.create_task(self._accept(self._socket))

    async def close(self, *, keep_port: bool) -> None:
        """Stop accepting, give up handshakes under way; connections that are open stay open."""
        await _cancel([self._accepting, *self._admitting])
        self._accepting = None
        self._socket.close()
        if keep_port:
            self._socket = _bound(self.host, self.port)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listening)
            if self._core.faults.close_on_accept.fires():
                client.close()
                continue
            task = asyncio.create_task(self._admit(client))
            self._admitting.add(task)
            task.add_done_callback(self._admitting.discard)

    async def _admit(self, client: socket.socket) -> None:
        timeout_s = HANDSHAKE_TIMEOUT_S if self._tls else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self._core), client, ssl=self._tls, ssl_handshake_timeout=timeout_s
            )
        except (OSError, ssl.SSLError) as error:
            self.handshake_failures.append(str(error) or type(error).__name__)
            client.close()
            self._core.bell.ring()


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setblocking(False)
    bound.bind((host, port))
    return bound


async def _cancel(tasks: "list[asyncio.Task[None] | None]") -> None:
    for task in tasks:
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
