"""A link of so many bytes a second in each direction: a TCP proxy with small buffers, as a modem has."""

import select
import socket
import threading
import time


class ThrottledLink:
    """Listens on `port` of 127.0.0.1 and carries what comes to `server`. Bytes are counted by direction."""

    def __init__(self, server: tuple[str, int], bytes_per_s: int) -> None:
        self._server = server
        self._bytes_per_s = bytes_per_s
        self._stopping = threading.Event()
        self._held = threading.Event()
        self._listener = socket.socket()
        # Before listen: an accepted socket inherits it. Without, the kernel would take megabytes at once.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = int(self._listener.getsockname()[1])
        self.up = self.down = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def hold(self) -> None:
        """From now on nothing is carried, and nothing is closed."""
        self._held.set()

    def __enter__(self) -> "ThrottledLink":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            if self._stopping.is_set() or not select.select([self._listener], [], [], 0.2)[0]:
                continue
            near, _ = self._listener.accept()
            far = socket.create_connection(self._server)
            for source, target, name in ((near, far, "up"), (far, near, "down")):
                thread = threading.Thread(target=self._carry, args=(source, target, name), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, target: socket.socket, name: str) -> None:
        """A tenth of a second's worth at a time; both ends are closed when one ends."""
        share = max(1, self._bytes_per_s // 10)
        next_s = time.monotonic()
        try:
            while not self._stopping.is_set():
                if self._held.is_set() or not select.select([source], [], [], 0.2)[0]:
                    self._stopping.wait(0.05 if self._held.is_set() else 0.0)
                    next_s = max(next_s, time.monotonic())
                    continue
                data = source.recv(share)
                if not data:
                    break
                target.sendall(data)
                setattr(self, name, getattr(self, name) + len(data))
                next_s = max(next_s, time.monotonic() - 0.1) + len(data) / self._bytes_per_s
                self._stopping.wait(max(0.0, next_s - time.monotonic()))
        except (OSError, ValueError):
            pass  # the other side has gone, or the other direction has closed both: that is an end, too
        finally:
            for end in (source, target):
                end.close()
