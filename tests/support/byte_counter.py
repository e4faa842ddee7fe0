"""A TCP relay that counts what goes through it."""

import select
import socket
import threading
from contextlib import suppress


class ByteCounter:
    """Listens on `port` of 127.0.0.1; `up` are bytes towards the server, counted before they are handed on."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.port = int(self._listener.getsockname()[1])
        self.up = self.down = 0

    def __enter__(self) -> "ByteCounter":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            if select.select([self._listener], [], [], 0.1)[0]:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server, 20)
                thread = threading.Thread(target=self._carry, args=(near, far), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, suppress(OSError):
            while not self._stopping.is_set():
                for source in select.select([near, far], [], [], 0.1)[0]:
                    if not (data := source.recv(65536)):
                        return
                    if source is near:
                        self.up += len(data)
                        far.sendall(data)
                    else:
                        self.down += len(data)
                        near.sendall(data)
