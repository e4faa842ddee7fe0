"""How the running gateway is, asked from another process of this machine: a socket beside its database.

A socket and not a file: nothing is written while nobody asks (flash), an answer is never stale, and no answer means
that there is no gateway, or one that hangs. The directory is private, so only its owner and root can ask.
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
MAX_BYTES = 1 << 20


class StatusSocket:
    """`answer()` is called for every question, on a thread of its own; between questions nothing happens."""

    def __init__(self, directory: Path, answer: Callable[[], bytes]) -> None:
        self._directory = directory
        self._answer = answer
        self._listener: socket.socket | None = None
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
        if self._listener is not None:
            with suppress(OSError):  # it wakes the waiting thread; closing alone does not
                self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join(CLIENT_TIMEOUT_S + 1)
            self._listener.close()
            (self._directory / NAME).unlink(missing_ok=True)

    def _serve(self) -> None:
        assert self._listener is not None
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed: the gateway stops
                return
            with client, suppress(OSError):  # who asked has gone
                client.settimeout(CLIENT_TIMEOUT_S)
                client.sendall(self._answer())


def ask(directory: Path, timeout_s: float = 5.0) -> bytes | None:
    """The running gateway's answer; None where no gateway listens.

    Raises:
        Unavailable: it listens and does not answer, or we may not ask it.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            with _short_path(directory) as path:
                connection.connect(path)
            return _read(connection)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unavailable(f"the gateway does not answer on {directory / NAME}: {error}") from error


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


def _read(connection: socket.socket) -> bytes:
    found = b""
    while (part := connection.recv(65_536)) and len(found) < MAX_BYTES:
        found += part
    return found
