"""Serves HTTP on one address, in a few threads of this process, however slowly or oddly it is asked.

waitress reads requests and writes answers in one thread, so that a slow client holds none of those that answer. Bounds
beyond its own: one request a connection, so many connections, so many seconds for each. Nothing goes to the disk.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from teg.domain.errors import Unavailable

logger = logging.getLogger("gateway.page")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: A call may take a minute, and calls of one kind never run side by side: they are hardly ever all at work.
THREADS = 4
CONNECTIONS = 64
HEADER_BYTES = 8_192
BODY_BYTES = 4_096
#: For a request to arrive, or its answer to leave.
TRANSFER_S = 30.0
TICK_S = 5.0
STOP_S = 3
RETRY_S = 30.0


class PageListener:
    """Listens from `start` to `stop`; an address that is not there yet (a network that comes late) is waited for."""

    def __init__(self, address: str, application: Application) -> None:
        self._address = address
        self._application = application
        self._stopping = threading.Event()
        self._server: _Server | None = None
        self._ending = threading.Lock()  #: a server that is closed must not be woken: its descriptor may be another's
        self._thread = threading.Thread(target=self._run, name="status-page", daemon=True)

    def start(self) -> None:
        logging.getLogger("waitress").setLevel(logging.ERROR)  # who asks badly must not fill the log
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        with self._ending:
            if self._server is not None:
                self._server.pull_trigger()
        self._thread.join(STOP_S + TICK_S)

    def _run(self) -> None:
        said = False
        while not self._stopping.is_set():
            try:
                listening = listen(self._address)
            except Unavailable as reason:
                if not said:
                    logger.warning("the status page waits for its address: %s", reason)
                said = True
                self._stopping.wait(RETRY_S)
                continue
            logger.info("status page: http://%s/", self._address)
            said = False
            self._serve(listening)

    def _serve(self, listening: socket.socket) -> None:
        server = self._server = _Server(self._application, listening)
        try:
            while not self._stopping.is_set():
                server.turn()
        finally:
            with self._ending:
                self._server = None
            server.task_dispatcher.shutdown(timeout=STOP_S)
            wasyncore.close_all(server.connections, ignore_all=True)


def listen(address: str) -> socket.socket:
    """A bound socket; `localhost` is 127.0.0.1, whatever a resolver says.

    Raises:
        Unavailable: the address is not there now, or somebody else has it.
    """
    host, _, port = address.rpartition(":")
    host = "127.0.0.1" if host.lower() == "localhost" else host.strip("[]")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Unavailable(f"TEG_CONSOLE={address}: {error}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
    except OSError as error:
        with closing(listening):
            raise Unavailable(f"TEG_CONSOLE={address}: {error}") from error
    return listening


class _Parser(HTTPRequestParser):
    """One request a connection: whoever holds a connection holds it for a bounded time."""

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        self.headers = {**self.headers, "CONNECTION": "close"}


class _Channel(HTTPChannel):
    parser_class = _Parser

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.waits_since_s = time.monotonic()
        super().__init__(*arguments, **options)

    def service(self) -> None:
        super().service()
        self.waits_since_s = time.monotonic()


class _Server(TcpWSGIServer):
    channel_class = _Channel

    def __init__(self, application: Application, listening: socket.socket) -> None:
        self.connections: dict[int, Any] = {}
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(THREADS)
        super().__init__(
            application,
            map=self.connections,
            _sock=listening,
            bind_socket=False,
            dispatcher=dispatcher,
            ident=None,
            connection_limit=CONNECTIONS,
            max_request_header_size=HEADER_BYTES,
            max_request_body_size=BODY_BYTES,
            inbuf_overflow=1 << 20,  # beyond what can come: a buffer never becomes a file
            outbuf_overflow=64 << 20,
            log_socket_errors=False,
            clear_untrusted_proxy_headers=True,
        )

    def turn(self) -> None:
        """Wait for a client or for a while, and do what there is to do."""
        self._end_slow_ones(time.monotonic() - TRANSFER_S)
        wasyncore.loop(TICK_S, use_poll=True, map=self.connections, count=1)

    def _end_slow_ones(self, since_s: float) -> None:
        """By a clock that nobody sets; a request that is being answered is not waited for by us."""
        for channel in list(self.connections.values()):
            if isinstance(channel, _Channel) and not channel.requests and channel.waits_since_s < since_s:
                channel.will_close = True

    def maintenance(self, now: float) -> None:
        """waitress's own, by the wall clock, is not needed."""
