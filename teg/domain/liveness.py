"""Which of our threads get on. Each notes what it does; who notes nothing, and is not even run, is stuck.

Time is counted in checks, not in seconds: a process that was stopped, starved of its processor, or suspended with its
machine, makes one late check and not many missed ones. A disk that does not answer stops the judging, because no new
start makes it answer. Whoever waits for a lock, an engine or a server says how long that may take.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

#: Between two checks. Three of them in a row, after one that saw the last note: noticed within 60 s.
CHECK_S = 15.0
STUCK_CHECKS = 3
#: A thread that is run, and notes nothing for ten minutes, goes round in circles.
CIRCLING_CHECKS = 40
#: For what ends when something happens, and may not happen.
UNLIMITED = math.inf
#: The service manager is told after one commit and one taken task at least, and both come once a minute.
PROOF_S = 120.0


@dataclass(frozen=True, slots=True)
class ThreadState:
    """As the kernel has it. `runs` grows whenever the thread is run."""

    runs: int
    waits_for_disk: bool


#: Of the thread with this number; None when there is none (any more).
StateOf = Callable[[int], ThreadState | None]


class Pulse:
    """One thread's notes; written by that thread alone, read by the check."""

    __slots__ = ("_blocked", "_runs", "_seen", "_silent", "count", "ident", "may_take_s", "name", "native_id", "what")

    def __init__(self, name: str) -> None:
        self.name = name
        self.what = "starts"
        self.may_take_s = 0.0
        self.count = 0
        self.native_id = self.ident = 0
        self._seen = -1
        self._runs = -1
        self._blocked = self._silent = 0

    def note(self, what: str, may_take_s: float = 0.0) -> None:
        """From now on `what`, which may keep the thread waiting for so long."""
        self.what, self.may_take_s = what, may_take_s
        self.count += 1

    def mine(self) -> None:
        """The calling thread is the one that is meant."""
        self.native_id, self.ident = threading.get_native_id(), threading.get_ident()

    def look(self, state: ThreadState | None) -> bool:
        """Compare with the last look; True when the disk holds the thread, and has held it since."""
        count, runs = self.count, -1 if state is None else state.runs
        noted, ran = count != self._seen, runs != self._runs
        self._seen, self._runs = count, runs
        if noted:
            self._blocked = self._silent = 0
            return False
        if state is not None and state.waits_for_disk and not ran:
            return True
        self._silent += 1
        self._blocked = 0 if ran else self._blocked + 1
        return False

    @property
    def stuck(self) -> bool:
        over = self._silent - self.may_take_s / CHECK_S
        return over >= STUCK_CHECKS and (self._blocked >= STUCK_CHECKS or over >= CIRCLING_CHECKS)


class Liveness:
    """The pulses of this process, and the proof that its work gets on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pulses: list[Pulse] = []
        self._local = threading.local()
        self._commits, self._taken = Pulse("commits"), Pulse("tasks taken")
        self._told = (0, 0)

    # --- the threads ---------------------------------------------------------------------------------------

    def watch(self, name: str) -> Pulse:
        """The calling thread is looked after from now on, until `forget`."""
        pulse = Pulse(name)
        pulse.mine()
        self._local.pulse = pulse
        with self._lock:
            self._pulses.append(pulse)
        return pulse

    def forget(self, pulse: Pulse) -> None:
        with self._lock:
            self._pulses = [other for other in self._pulses if other is not pulse]

    def note(self, what: str, may_take_s: float = 0.0) -> None:
        """`Pulse.note` of the calling thread, if it is looked after."""
        if (pulse := getattr(self._local, "pulse", None)) is not None:
            pulse.note(what, may_take_s)

    def progress(self) -> None:
        """The calling thread gets on with what it noted."""
        if (pulse := getattr(self._local, "pulse", None)) is not None:
            pulse.count += 1

    def committed(self) -> None:
        """A transaction has ended well, or was refused for a reason that passes: both prove that one can be had."""
        self._commits.note("the last commit", PROOF_S)
        self.progress()

    def took(self) -> None:
        """A worker has taken a task."""
        self._taken.note("the last task taken", PROOF_S)

    # --- the check -----------------------------------------------------------------------------------------

    def check(self, state_of: StateOf) -> list[Pulse]:
        """Call it every `CHECK_S`; returns what is stuck."""
        with self._lock:
            threads = list(self._pulses)
        held = [pulse.look(state_of(pulse.native_id)) for pulse in threads]
        if any(held):
            return []
        proofs = [pulse for pulse in (self._commits, self._taken) if pulse.count]
        for proof in proofs:
            proof.look(None)
        return [pulse for pulse in (*threads, *proofs) if pulse.stuck]

    def proven(self) -> bool:
        """True when there were a commit and a taken task since the last time that this was true."""
        now = (self._commits.count, self._taken.count)
        if any(new == old for new, old in zip(now, self._told, strict=True)):
            return False
        self._told = now
        return True
