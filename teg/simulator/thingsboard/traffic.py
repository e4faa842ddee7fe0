"""What one device's sessions looked like: every publish, every connection, and how much was in flight."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Publish:
    """One PUBLISH as received. `time_s` is monotonic; `acked` turns true when the PUBACK leaves."""

    topic: str
    qos: int
    dup: bool
    mid: int
    payload: bytes
    time_s: float
    session: int
    retain: bool = False
    acked: bool = False


@dataclass(slots=True)
class SessionRecord:
    """One accepted connection. Times are monotonic, `closed_s` is None while it is open."""

    number: int
    client_id: str
    version: int
    clean: bool
    keep_alive_s: int
    opened_s: float = field(default_factory=time.monotonic)
    closed_s: float | None = None
    close_reason: str = ""
    #: Granted filters, with the granted QoS.
    subscriptions: dict[str, int] = field(default_factory=dict)
    refused_filters: list[str] = field(default_factory=list)
    #: The client said goodbye with DISCONNECT.
    disconnected: bool = False
    #: Something followed the DISCONNECT in the same breath; what came later met a closed socket.
    packets_after_disconnect: bool = False
    pings: int = 0
    unacked: int = 0
    max_unacked: int = 0

    @property
    def open(self) -> bool:
        return self.closed_s is None

    def arrived(self) -> None:
        self.unacked += 1
        self.max_unacked = max(self.max_unacked, self.unacked)

    def acknowledged(self) -> None:
        self.unacked -= 1

    def close(self, reason: str) -> None:
        if self.closed_s is None:
            self.closed_s, self.close_reason = time.monotonic(), reason
