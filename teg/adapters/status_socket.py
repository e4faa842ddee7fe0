"""The running gateway, asked and told from another process of this machine: a socket beside its database.

A socket and not a file: nothing is written while nobody asks (flash), an answer is never stale, and no answer means
that there is no gateway, or one that hangs. The directory is private, so only its owner and root can ask. One
connection is one request, a line of JSON (an empty one asks how it is), answered by lines: progress, then the answer.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from teg.domain.errors import Unavailable

logger = logging.getLogger("gateway.status")

NAME = "gateway.sock"
#: Who asks and does not read must not keep the others waiting.
CLIENT_TIMEOUT_S = 2.0
MAX_REQUEST_BYTES, MAX_BYTES = 1 << 16, 1 << 20
#: More than one person and a health check hardly ask at once.
MAX_CLIENTS = 8

Say = Callable[[bytes], None]
#: The request and how to tell its progress → the answer.
Answer = Callable[[bytes, Say], bytes]


class StatusSocket:
    """`answer` is called for every request, each on a thread of its own; between requests nothing happens."""

    def __init__(self, directory: Path, answer: Answer) -> None:
        self._directory = directory
        self._answer = answer
        self._listener: socket.socket | None = None
        self._seats = threading.BoundedSemaphore(MAX_CLIENTS)
        self._clients: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._serve, name="status-socket", daemon=True)

    def start(self) -> None:
        """Without the socket (a file system that knows none, a full disk) the gateway works all the same."""
        try:
            self._listener = _listen(self._directory)
        except OSError as error:
            logger.warning("%s cannot be made, 'teg status' will know less: %s", self._directory / NAME, error)
        else:
            self._thread.start()

    def stop(self) -> None:
        """Nobody new is heard; who is being answered has a moment to hear the end."""
        if self._listener is not None:
            with suppress(OSError):  # it wakes the waiting thread; closing alone does not
                self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join(CLIENT_TIMEOUT_S + 1)
            for client in list(self._clients):
                client.join(CLIENT_TIMEOUT_S + 1)
            self._listener.close()
            (self._directory / NAME).unlink(missing_ok=True)

    def _serve(self) -> None:
        assert self._listener is not None
        while True:
            self._seats.acquire()
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed: the gateway stops
                return
            thread = threading.Thread(target=self._attend, args=(client,), name="status-client", daemon=True)
            self._clients.add(thread)
            thread.start()

    def _attend(self, client: socket.socket) -> None:
        try:
            with client, suppress(OSError):  # who asked has gone
                client.settimeout(CLIENT_TIMEOUT_S)
                client.sendall(self._answer(_request(client), lambda line: _tell(client, line)))
        finally:
            self._clients.discard(threading.current_thread())
            self._seats.release()


def _request(client: socket.socket) -> bytes:
    """Up to its line end; empty of whoever only connects, as the console of an earlier version does."""
    found = b""
    with suppress(TimeoutError):
        while b"\n" not in found and len(found) < MAX_REQUEST_BYTES and (part := client.recv(4096)):
            found += part
    return found.partition(b"\n")[0]


def _tell(client: socket.socket, line: bytes) -> None:
    """Progress; nobody is left to hear it after Ctrl-C, and the work goes on."""
    with suppress(OSError):
        client.sendall(line + b"\n")


def ask(directory: Path, timeout_s: float = 5.0) -> bytes | None:
    """The running gateway's account of itself; None where no gateway listens.

    Raises:
        Unavailable: it listens and does not answer, or we may not ask it.
    """
    lines = order(directory, b"", timeout_s)
    return None if lines is None else b"\n".join(lines)


def order(directory: Path, request: bytes, timeout_s: float) -> Iterator[bytes] | None:
    """Have the running gateway do something; yields what it tells, line by line. None where no gateway listens.

    Raises:
        Unavailable: it listens and does not answer, or we may not ask it.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout_s)
    try:
        with _short_path(directory) as path:
            connection.connect(path)
        connection.sendall(request + b"\n")
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise _silent(directory, error) from error
    return _lines(connection, directory)


def _lines(connection: socket.socket, directory: Path) -> Iterator[bytes]:
    with connection, connection.makefile("rb") as answer:
        try:
            while line := answer.readline(MAX_BYTES):
                yield line.removesuffix(b"\n")
        except OSError as error:
            raise _silent(directory, error) from error


def _silent(directory: Path, error: OSError) -> Unavailable:
    return Unavailable(f"the gateway does not answer on {directory / NAME}: {error}")


def _listen(directory: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        (directory / NAME).unlink(missing_ok=True)  # of a killed gateway: we hold its lock, it is not there any more
        with _short_path(directory) as path:
            listener.bind(path)
        (directory / NAME).chmod(0o600)
        listener.listen(8)
    except OSError:
        listener.close()
        raise
    return listener


@contextmanager
def _short_path(directory: Path) -> Iterator[str]:
    """A socket's path has 107 characters at most; a directory of any depth has a short name by its descriptor."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)
