"""One length of time for all steps together: a peer that sends a byte now and then does not hold us for ever."""

import socket
import time


class Deadline:
    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._end_s = time.monotonic() + within_s

    def left_s(self) -> float:
        """Raises TimeoutError when nothing is left."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"no answer within {self._within_s:.0f} s")
        return left_s

    def send(self, connection: socket.socket, data: bytes) -> None:
        connection.settimeout(self.left_s())
        connection.sendall(data)

    def receive(self, connection: socket.socket, most: int) -> bytes:
        connection.settimeout(self.left_s())
        return connection.recv(most)
