"""A reader that computes without end goes last: whatever else wants the processor, of one core too, comes before it.

Told by the processor time it took, not by the time that passed: a slow card, or a busy machine, is no reason. A
reader that was good keeps its place, so a backlog is read at full speed.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

#: Since its last answer. A batch takes some hundredths of a second, tenths on a small machine.
HUMBLE_AFTER_S = 1.0
LAST = 19
#: Which of the clocks of a process: what the scheduler gave it (CPUCLOCK_SCHED).
_SCHEDULER = 2


class ProcessorTime:
    """Of one process that may be hostile: it is looked at from outside and has no say."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._at_answer_s = 0.0

    def answered(self) -> None:
        self._at_answer_s = self.used_s()

    def humble_if_greedy(self) -> None:
        """Nobody can take it back but root, and it ends with the process."""
        if self.used_s() - self._at_answer_s < HUMBLE_AFTER_S:
            return
        with suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, self._pid, LAST)
        with suppress(
            OSError
        ):  # its session is a group of its own for the scheduler, where the kernel makes such groups
            Path(f"/proc/{self._pid}/autogroup").write_text(str(LAST))

    def used_s(self) -> float:
        """By its clock (clock_getcpuclockid(3)): /proc may be hidden from a service. 0 when it has ended."""
        try:
            return time.clock_gettime(~self._pid << 3 | _SCHEDULER)
        except OSError:
            return 0.0
