"""Telling a second user of our access token from a bad link.

ThingsBoard allows one session a device: whoever connects ends the other's. On MQTT 3.1.1 that looks like any other
close; MQTT 5 gives the reason, and then it is certain. What tells them apart without one is the rhythm: the other side
comes back when we do, so each of our sessions lasts as long as its wait, every connect of ours succeeds at once, and
nothing of ours was on the way. A bad link also refuses connects, and cuts when it likes.
"""

from collections import deque
from enum import StrEnum

#: Closed this often in a row, soon after each connect and for no visible reason.
CLOSES = 3
WITHIN_S = 150.0
#: The longest of those sessions is at most so many times the shortest: a wait with jitter.
RHYTHM = 2.5


class Suspicion(StrEnum):
    """How sure we are; the value is what `status` shows."""

    MAYBE = "may be"
    LIKELY = "most likely"
    CERTAIN = "certainly"


_SAID = {
    Suspicion.CERTAIN: (
        "the server says that another session took its place: another program or a second device (a cloned SD card?)"
        " uses the same access token"
    ),
    Suspicion.MAYBE: (
        "closed by the server {closes} times in a row soon after it was made: the link is bad, or it may be that"
        " another program or a second device (a cloned SD card?) uses the same access token"
    ),
    Suspicion.LIKELY: (
        "closed by the server {closes} times in a row, in the rhythm of our connects: most likely another program or a"
        " second device (a cloned SD card?) uses the same access token"
    ),
}


class SecondUser:
    """Fed with the end of every attempt to be connected."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._lasted_s: deque[float] = deque(maxlen=CLOSES)
        self._closes = 0
        self._connects_failed = self._told = False

    def ended(self, established: bool, suspicious: bool, lasted_s: float, taken_over: bool = False) -> None:
        """`suspicious`: closed by the server with nothing of ours on the way; `taken_over`: the server says so."""
        if taken_over:
            self._told = True
            return
        if not established:
            self._connects_failed = True
        elif suspicious and lasted_s < WITHIN_S:
            self._closes += 1
            self._lasted_s.append(lasted_s)
        else:
            self._forget()

    @property
    def suspicion(self) -> Suspicion | None:
        """None while there is no reason for any."""
        if self._told:
            return Suspicion.CERTAIN
        if self._closes < CLOSES:
            return None
        if not self._connects_failed and max(self._lasted_s) <= RHYTHM * min(self._lasted_s) + 1.0:
            return Suspicion.LIKELY
        return Suspicion.MAYBE

    def text(self) -> str:
        suspicion = self.suspicion
        return "" if suspicion is None else _SAID[suspicion].format(closes=self._closes)
