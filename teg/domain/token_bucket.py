"""A token bucket: so many at once, so many a second after that."""

import threading

from teg.domain.ports import Clock


class TokenBucket:
    """Holds `burst` tokens, refilled at `per_s`; safe for several threads."""

    def __init__(self, clock: Clock, per_s: float, burst: int) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._filled_s = clock.monotonic_s()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """False when there is no token now; nothing waits."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._filled_s) * self._per_s)
            self._filled_s = now_s
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
