"""The listening socket: accepts clients, does the TLS handshake, and can go away and come back."""

import asyncio
import contextlib
import socket
import ssl

from teg.simulator.thingsboard.connection import ClientConnection, Login
from teg.simulator.thingsboard.core import Core

HANDSHAKE_TIMEOUT_S = 30.0
#: The client has been told with close_notify; a dead one is not waited for.
SHUTDOWN_TIMEOUT_S = 3.0


class Listener:
    """While not listening the port stays bound, so that connecting is refused and nobody else takes it."""

    def __init__(self, core: Core, host: str, port: int, tls: ssl.SSLContext | None, login: Login) -> None:
        self._core = core
        self._tls = tls
        self._login = login
        self._socket = _bound(host, port)
        self._listening = False
        self._admitting: set[asyncio.Task[None]] = set()
        self.host, self.port = self._socket.getsockname()[:2]
        self.handshake_failures: list[str] = []

    async def open(self) -> None:
        if not self._listening:
            self._listening = True
            self._socket.listen(128)
            self._core.loop.add_reader(self._socket, self._accept)

    async def close(self, *, keep_port: bool) -> None:
        """Stop accepting, give up handshakes under way; connections that are open stay open."""
        self._core.loop.remove_reader(self._socket)
        self._listening = False
        self._socket.close()
        for task in list(self._admitting):
            task.cancel()
            await asyncio.wait([task])
        if keep_port:
            self._socket = _bound(self.host, self.port)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = self._socket.accept()
            client.setblocking(False)
            # As Netty does by default; asyncio leaves Nagle on for accepted sockets, 40 ms an OTA chunk.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._core.faults.close_on_accept.fires():
                client.close()
                return
            task = self._core.loop.create_task(self._admit(client))
            self._admitting.add(task)
            task.add_done_callback(lambda done: self._admitted(done, client))

    def _admitted(self, task: "asyncio.Task[None]", client: socket.socket) -> None:
        """A task that was cancelled before it began has closed nothing."""
        self._admitting.discard(task)
        if task.cancelled():
            client.close()

    async def _admit(self, client: socket.socket) -> None:
        timeouts = (HANDSHAKE_TIMEOUT_S, SHUTDOWN_TIMEOUT_S) if self._tls else (None, None)
        try:
            await self._core.loop.connect_accepted_socket(
                lambda: ClientConnection(self._core, self._login),
                client,
                ssl=self._tls,
                ssl_handshake_timeout=timeouts[0],
                ssl_shutdown_timeout=timeouts[1],
            )
        except (OSError, ssl.SSLError) as error:
            self.handshake_failures.append(str(error) or type(error).__name__)
            client.close()
            self._core.changes.notify()


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setblocking(False)
    bound.bind((host, port))
    return bound
