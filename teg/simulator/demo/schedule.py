"""The scripted demo: which key is pressed when, for a run of `DEMO_SECONDS`."""

import math

#: (share of the time, key): an outage first, then everything else, each with room to be survived.
_SCRIPT = (
    (0.10, "n"),
    (0.25, "n"),
    (0.30, "r"),
    (0.35, "k"),
    (0.46, "f"),
    (0.48, "c"),
    (0.72, "d"),
    (0.96, "p"),
)
#: With this much time, updates as well: their trials take a while.
LONG_S = 45.0
_LONG_SCRIPT = (
    (0.06, "n"),
    (0.16, "n"),
    (0.20, "r"),
    (0.22, "k"),
    (0.32, "f"),
    (0.34, "c"),
    (0.46, "d"),
    (0.60, "g"),
    (0.74, "b"),
    (0.94, "p"),
)
#: Below this there is only time for the first record.
SHORTEST_S = 6.0
#: How long the first value may take to the server; the run is over then, whatever it was to be.
START_S = 60.0


class Schedule:
    """The seconds of a run count from the first value on the server: before that there is nothing to strike."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        script: tuple[tuple[float, str], ...] = _LONG_SCRIPT if seconds >= LONG_S else _SCRIPT
        if math.isinf(seconds) or seconds < SHORTEST_S:
            script = ()
        self._left = [(share * seconds, key) for share, key in script]

    @staticmethod
    def played_s(elapsed_s: float, first_arrival_s: float | None) -> float:
        return 0.0 if first_arrival_s is None else elapsed_s - first_arrival_s

    def is_over(self, elapsed_s: float, first_arrival_s: float | None) -> bool:
        if first_arrival_s is None:
            return elapsed_s >= max(START_S, self._seconds)
        return self.played_s(elapsed_s, first_arrival_s) >= self._seconds

    def due(self, played_s: float) -> str:
        """The keys whose time has come since the last call, in order."""
        keys = ""
        while self._left and self._left[0][0] <= played_s:
            keys += self._left.pop(0)[1]
        return keys
