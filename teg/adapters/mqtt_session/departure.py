"""When did a message leave this machine? Its PUBACK is due only from then on."""

import time
from typing import Protocol


class Progress(Protocol):
    def progress(self) -> tuple[int, int]: ...

    def stalled_s(self) -> float: ...


class Departure:
    """Made just before a message of `size` bytes is published: MQTT writes in order, so it goes behind what waits.

    What the network thread had not handed to the kernel yet is not seen, nor what TLS adds: the message seems to have
    left somewhat earlier then than it did.
    """

    def __init__(self, link: Progress, size: int) -> None:
        self._link = link
        self._began_s = time.monotonic()
        self._left_s: float | None = None
        self._end = sum(link.progress()) + size

    def quiet_s(self) -> float:
        """Seconds since the last byte moved, until the message is gone; since then, from there on."""
        now_s, stalled_s = time.monotonic(), self._link.stalled_s()
        if self._left_s is None and self._link.progress()[0] >= self._end:
            self._left_s = now_s
        quiet_s = stalled_s if self._left_s is None else now_s - self._left_s
        return min(quiet_s, now_s - self._began_s)
