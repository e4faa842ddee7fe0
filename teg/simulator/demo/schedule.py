"""The scripted demo: which key is pressed when, for a run of `DEMO_SECONDS`.

A blow is struck when the one before has been survived, so a slow machine plays the same script, only longer.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """`needs_s` is what it and its survival take on a machine with nothing else to do."""

    key: str
    needs_s: float


#: How long the scripted outage lasts.
OUTAGE_S = 3.0
#: The outage and the kill first: they are what even a short run has to show.
SCRIPT = (
    Step("n", OUTAGE_S),
    Step("n", 2.0),
    Step("k", 2.0),
    Step("r", 0.2),
    Step("f", 0.5),
    Step("c", 3.0),
    Step("x", 2.0),
    Step("p", 5.0),
    Step("d", 5.0),
    Step("g", 5.0),
    Step("b", 4.0),
)
#: With time left the pauses grow, up to this; what is left then passes quietly.
LONGEST_PAUSE_S = 6.0
#: A blow that is not over after this long is followed by the next one all the same.
PATIENCE_S = 25.0
#: How long the first value may take to the server; the run is over then, whatever it was to be.
START_S = 60.0


class Schedule:
    """The seconds of a run count from the first value on the server: before that there is nothing to strike."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._left = fitting(seconds)
        needed_s = sum(step.needs_s for step in self._left)
        self._pause_s = min(LONGEST_PAUSE_S, (seconds - needed_s) / (len(self._left) + 1)) if self._left else 0.0
        self._struck_s = 0.0
        self._network_off = False

    def is_over(self, elapsed_s: float, first_arrival_s: float | None) -> bool:
        """When the time has passed and the script with it."""
        if first_arrival_s is None:
            return elapsed_s >= max(START_S, self._seconds)
        return not self._left and elapsed_s - first_arrival_s >= self._seconds

    def is_late(self, elapsed_s: float) -> bool:
        """The last blow has had its time."""
        return elapsed_s - self._struck_s >= PATIENCE_S

    def due(self, elapsed_s: float, first_arrival_s: float | None, survived: bool) -> str:
        """The key to press now, or nothing. `survived`: nothing that was struck is still being dealt with."""
        if first_arrival_s is None or not self._left:
            return ""
        self._struck_s = max(self._struck_s, first_arrival_s)
        waited_s = elapsed_s - self._struck_s
        if waited_s < (OUTAGE_S if self._network_off else self._pause_s):
            return ""
        if not (survived or self._network_off or waited_s >= PATIENCE_S):
            return ""
        self._struck_s = elapsed_s
        step = self._left.pop(0)
        self._network_off = step.key == "n" and not self._network_off
        return step.key


def fitting(seconds: float) -> list[Step]:
    """As much of the script as the time is enough for; nothing for a run that only a key ends."""
    steps: list[Step] = []
    needed_s = 0.0
    for step in () if math.isinf(seconds) else SCRIPT:
        needed_s += step.needs_s
        if needed_s > seconds:
            break
        steps.append(step)
    return steps if len(steps) > 1 else []
