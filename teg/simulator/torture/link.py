"""A bad link: a TCP proxy that delays, throttles, holds back, loses and resets what goes through it."""

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

#: A connection closed with this is answered by a reset instead of an end.
_RESET = struct.pack("ii", 1, 0)
_READ_BYTES = 16_384
_LOOK_S = 0.05


class _Connection:
    """Both ends of one connection. `lost`: half-open, nothing goes through it any more, and nobody is told."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.ends = (near, far)
        self.lost = False

    def reset(self) -> None:
        for end in self.ends:
            with suppress(OSError):
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.transport.abort()


class FaultyLink:
    """Listens on `host`:`port` and carries what comes to `server`, in both directions.

    `delay_s`, `bytes_per_s` (0: no limit), `held` (nothing goes through until it is False again) and `refusing` (a new
    connection is closed at once) may be set at any time; `reset` and `lose` strike the connections there are.
    """

    host = "127.0.0.1"

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._connections: set[_Connection] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="faulty-link", daemon=True)
        self.port = 0
        self.heal()

    def __enter__(self) -> "FaultyLink":
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def heal(self) -> None:
        """Everything goes through again; what was lost stays lost."""
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self.held = False
        self.refusing = False

    def reset(self) -> None:
        self._loop.call_soon_threadsafe(self._reset)

    def cut_off(self) -> None:
        """The connections there are end, and none is made any more."""
        self.refusing = True
        self.reset()

    def lose(self) -> None:
        """As a router that forgot its table: both ends believe that they are connected."""
        for each in list(self._connections):
            each.lost = True

    # --- in the loop ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._loop.run_until_complete(self._run())
        self._loop.close()

    def _reset(self) -> None:
        for each in self._connections:
            each.reset()

    async def _run(self) -> None:
        self._stopping = asyncio.Event()
        listener = await asyncio.start_server(self._accept, self.host, 0)
        self.port = listener.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopping.wait()
        listener.close()
        self._reset()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            if self.refusing:
                raise ConnectionRefusedError
            server_reader, far = await asyncio.open_connection(*self._server)
        except OSError:
            near.transport.abort()
            return
        connection = _Connection(near, far)
        self._connections.add(connection)
        ways = [
            asyncio.create_task(self._carry(connection, reader, far)),
            asyncio.create_task(self._carry(connection, server_reader, near)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in connection.ends:
                end.close()
            self._connections.discard(connection)

    async def _carry(self, connection: _Connection, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Until one end closes; a lost connection is never closed by us, whatever its ends do."""
        with suppress(OSError):
            while data := await source.read(_READ_BYTES):
                await asyncio.sleep(self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0))
                while self.held:
                    await asyncio.sleep(_LOOK_S)
                if not connection.lost:
                    target.write(data)
                    await target.drain()
