"""The HTTP server of the REST API, on the stand-in's own loop."""

import asyncio
import socket

import uvicorn
from starlette.applications import Starlette


class RestListener:
    """The port is taken on construction and served from `open` to `close`."""

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        self._socket = socket.create_server((host, port))
        # asyncio does so only for sockets that were made with IPPROTO_TCP; without it each answer takes 40 ms
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host, self.port = self._socket.getsockname()[:2]
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._server.serve([self._socket]))
        while not self._server.started:
            await asyncio.sleep(0.005)

    def drop_connections(self) -> None:
        """As when the process dies."""
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def close(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()
