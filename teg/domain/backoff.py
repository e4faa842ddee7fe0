"""How long to wait before the next try: exponential, capped, and jittered so that a fleet does not march in step."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """First wait, cap (both seconds) and growth; full range of a wait is 50–100 % of its nominal value."""

    first_s: float
    cap_s: float
    factor: float = 2.0

    def nominal_s(self, attempt: int) -> float:
        """The wait before retry number `attempt` (0 = the first) without jitter."""
        exponent = min(attempt, 64)
        return min(self.cap_s, self.first_s * self.factor**exponent)

    def wait_s(self, attempt: int) -> float:
        return self.nominal_s(attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - spread, not secrecy
