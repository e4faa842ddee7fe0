"""What the gateway writes in a day, how long a card lasts with that, and what a budget of megabytes makes slower.

A budget that is exceeded makes records wait longer in the inbox, which is durable, for others to share their commit.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from teg.domain.ports import Clock

logger = logging.getLogger("gateway.flash")

MB = 1_000_000
DAY_S, YEAR_DAYS = 86_400, 365
#: Looked at every ten minutes; what is told is the rate of the last hour, or since the start.
LOOK_S, LOOKS = 600.0, 6
#: What a budget makes of the time between two commits: from the first on, twice as long each look.
FIRST_COMMIT_S, LONGEST_COMMIT_S = 1.0, 30.0
#: Half as long again doubles the writes at most, so this share of the budget is needed for it.
RELAXED = 0.45
#: Of a card: how often each cell may be written, and what its own blocks make of a small write. Both are the worse
#: figures of cheap cards; an estimate, not a promise.
CELL_WRITES, AMPLIFICATION = 500, 4


class FlashBudget:
    """`commit_s` for the recorder's pace; `look` every ten minutes, from one thread at a time."""

    def __init__(
        self,
        written_bytes: Callable[[], int | None],
        disk_bytes: Callable[[], int],
        clock: Clock,
        megabytes: int | None,
    ) -> None:
        """`written_bytes`: by our processes since the start, None where the kernel does not tell."""
        self._written_bytes = written_bytes
        self._disk_bytes = disk_bytes
        self._clock = clock
        self._budget = None if megabytes is None else megabytes * MB
        self._looks: deque[tuple[float, int]] = deque(maxlen=LOOKS + 1)
        self.commit_s = 0.0
        self._note()

    @property
    def due(self) -> bool:
        return not self._looks or self._clock.monotonic_s() - self._looks[-1][0] >= LOOK_S

    def look(self) -> None:
        """Too early it does nothing: what a start writes within seconds says nothing of a day."""
        if not self.due:
            return
        self._note()
        per_day = self.per_day_bytes()
        if self._budget is not None and per_day is not None:
            self._adapt(per_day, self._budget)

    def _note(self) -> None:
        written = self._written_bytes()
        if written is not None:
            self._looks.append((self._clock.monotonic_s(), written))

    def per_day_bytes(self) -> int | None:
        """At the rate of the last hour; None before the first ten minutes are over."""
        if len(self._looks) < 2:
            return None
        (begin_s, before), (end_s, after) = self._looks[0], self._looks[-1]
        return round(max(0, after - before) / (end_s - begin_s) * DAY_S)

    def _adapt(self, per_day: int, budget: int) -> None:
        before = self.commit_s
        if per_day > budget:
            self.commit_s = min(LONGEST_COMMIT_S, max(FIRST_COMMIT_S, 2 * before))
        elif per_day < RELAXED * budget and before:
            self.commit_s = before / 2 if before / 2 >= FIRST_COMMIT_S else 0.0
        if self.commit_s and not before:
            logger.warning(
                "the gateway writes %.1f MB a day, TEG_FLASH_MB_PER_DAY is %d: records wait in the inbox for up to"
                " %d s to be archived together",
                *(per_day / MB, budget // MB, LONGEST_COMMIT_S),
            )
        elif before and not self.commit_s:
            logger.warning("the gateway writes less than TEG_FLASH_MB_PER_DAY again: records are archived at once")

    def summary(self) -> dict[str, Any]:
        """For `status`; `card_years` is an estimate for a card of this size that only we write to."""
        per_day = self.per_day_bytes()
        years = None
        if per_day:
            years = round(self._disk_bytes() * CELL_WRITES / AMPLIFICATION / per_day / YEAR_DAYS, 1)
        return {
            "per_day_bytes": per_day,
            "budget_bytes": self._budget,
            "commit_s": self.commit_s,
            "card_years": years,
        }
