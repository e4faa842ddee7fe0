"""Token buckets: so many at once, so many a second after that. For limits we set and for limits we keep."""

import threading
from dataclasses import dataclass

from teg.domain.ports import Clock


@dataclass(slots=True)
class Bucket:
    """At most `capacity` tokens, refilled at `per_s`; `level` of them are there at `at_s` (monotonic). One thread."""

    capacity: float
    per_s: float
    level: float
    at_s: float

    def wait_s(self, now_s: float, tokens: int = 1) -> float:
        """Seconds until `tokens` are there; more than the bucket holds count as all it holds."""
        self._refill(now_s)
        return max(0.0, (min(tokens, self.capacity) - self.level) / self.per_s)

    def take(self, tokens: int = 1) -> None:
        """Take them whether they are there or not: what was spent was spent."""
        self.level -= tokens

    def _refill(self, now_s: float) -> None:
        self.level = min(self.capacity, self.level + max(0.0, now_s - self.at_s) * self.per_s)
        self.at_s = now_s


class TokenBucket:
    """Holds `burst` tokens, refilled at `per_s`; safe for several threads."""

    def __init__(self, clock: Clock, per_s: float, burst: int) -> None:
        self._clock = clock
        self._bucket = Bucket(burst, per_s, burst, clock.monotonic_s())
        self._lock = threading.Lock()

    def take(self) -> bool:
        """False when there is no token now; nothing waits."""
        with self._lock:
            if self._bucket.wait_s(self._clock.monotonic_s()) > 0:
                return False
            self._bucket.take()
            return True
