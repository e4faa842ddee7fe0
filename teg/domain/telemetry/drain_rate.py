"""How fast rows are acknowledged, over the last half minute: for the estimate of a backlog's end."""

from collections import deque

SPAN_S = 30.0


class DrainRate:
    """Counts by the second; written by one thread, read by any."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=int(SPAN_S))

    def add(self, now_s: float, rows: int, old: int) -> None:
        """`old` of the `rows` came out of a backlog."""
        second = int(now_s)
        if self._seconds and self._seconds[-1][0] == second:
            _, rows_before, old_before = self._seconds.pop()
            rows, old = rows + rows_before, old + old_before
        self._seconds.append((second, rows, old))

    def rows_per_s(self, now_s: float) -> float:
        return self._mean(now_s, 1)

    def old_per_s(self, now_s: float) -> float:
        return self._mean(now_s, 2)

    def _mean(self, now_s: float, column: int) -> float:
        """The second that is still running is left out: it is not over."""
        recent = [entry for entry in tuple(self._seconds) if now_s - SPAN_S - 1 <= entry[0] < int(now_s)]
        return sum(entry[column] for entry in recent) / max(1, int(now_s) - recent[0][0]) if recent else 0.0
