"""A TCP relay in front of a server that cannot be stopped: its network goes and comes back."""

import contextlib
import select
import socket
import ssl
import threading


class Relay:
    """Listens on `port` of 127.0.0.1; `cut` ends every connection and refuses new ones until `mend`.

    With `tls` it speaks TLS with the server and none here, as a certificate of the server is good for no relay.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._server = (host, port)
        self._tls = tls
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> "Relay":
        self._start(self._accept, self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        self._end(self._listener)
        for end in self._ends:
            self._end(end)
        self._ends.clear()

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed: the network is gone
            while not self._stopping.is_set():
                near, _ = listener.accept()
                far = self._connected()
                self._ends += [near, far]
                self._start(self._carry, near, far)

    def _connected(self) -> socket.socket:
        far = socket.create_connection(self._server, 20)
        return far if self._tls is None else self._tls.wrap_socket(far, server_hostname=self._server[0])

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Until either end is closed, by its owner or by `cut`."""
        with near, far, contextlib.suppress(OSError, ValueError):
            while not self._stopping.is_set():
                for source in _readable(near, far):
                    if not (data := source.recv(65536)):
                        return
                    (far if source is near else near).sendall(data)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    @staticmethod
    def _end(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def _readable(near: socket.socket, far: socket.socket) -> list[socket.socket]:
    """What TLS has decrypted already is nothing that `select` would see."""
    if isinstance(far, ssl.SSLSocket) and far.pending():
        return [far]
    return select.select([near, far], [], [], 0.2)[0]
