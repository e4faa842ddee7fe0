"""The way to the server: bytes are counted, connections are cut, the whole of it is taken away and given back.

It stands between the members and any server, so that an outage needs no hand on that server. TLS ends here: the members
speak plain MQTT to it, on this machine.
"""

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK = 1 << 16
_CLOSED_PORT_WAIT_S = 10.0


class Relay:
    """One thread. `connects` are the moments (CLOCK_MONOTONIC, seconds) at which the server accepted a connection."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._upstream = (host, port)
        self._tls = tls
        self.connects: list[float] = []
        self.bytes_up = self.bytes_down = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet-relay", daemon=True)
        self._thread.start()
        self.host, self.port = _own_address(), 0
        self.open()

    def open(self) -> None:
        self._call(self._listen())

    def shut(self) -> None:
        """From now on connecting is refused, and what was connected is not any more."""
        self._call(self._close())

    def cut(self, every: int) -> None:
        """Reset each `every`th connection."""
        self._call(self._cancel(sorted(self._open, key=id)[::every]))

    def stop(self) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSED_PORT_WAIT_S)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(60)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, self.host, self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cancel(self._open)

    async def _cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        ending = list(tasks)
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._joined(reader, writer)
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection(*self._upstream, ssl=self._tls)
        self.connects.append(time.monotonic())
        up = asyncio.create_task(self._copy(reader, to_server[1], up=True))
        down = asyncio.create_task(self._copy(to_server[0], writer, up=False))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in (up, down):
                way.cancel()
            to_server[1].transport.abort()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, up: bool) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                if up:
                    self.bytes_up += len(data)
                else:
                    self.bytes_down += len(data)
                target.write(data)
                await target.drain()


def _own_address() -> str:
    """An address of the loopback network that no other process uses: the port is still ours after an outage."""
    if not _can_bind(address := f"127.{64 + (os.getpid() >> 16)}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"):
        return "127.0.0.1"  # not on Linux: only the first address is there
    return address


def _can_bind(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
