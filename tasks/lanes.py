"""The lanes of the queue, their workers, and what wakes an idle worker or the scheduler at once."""

import os
import select
import threading
from contextlib import suppress
from enum import StrEnum


class Lane(StrEnum):
    """Each lane has its own queue and workers, so slow work can never stand in front of fast work."""

    RPC = "rpc"  #: answers within milliseconds; nothing here may wait for the outside
    TELEMETRY = "telemetry"  #: archive and publish: two drainers, which wait a little for more before they end
    WORK = "work"  #: attributes, files, reports, periodic work
    SUPERVISION = "supervision"  #: everything that asks Docker about the controller
    OTA = "ota"  #: fetch, build, download: minutes
    COMMAND = "command"  #: operators' commands and archive jobs: up to a minute


WORKERS = {
    Lane.RPC: 1,
    Lane.TELEMETRY: 2,
    Lane.WORK: 2,
    Lane.SUPERVISION: 1,
    Lane.OTA: 1,
    Lane.COMMAND: 5,  # one for each group of calls (teg/domain/rpc/methods.py): none waits for another
}


#: How long one wait in a task may be; what gets on notes it more often (`huey.liveness`). Where nothing stands, no wait
#: is longer than a server's answer (30 s).
MAY_WAIT_S = {
    Lane.SUPERVISION: 120.0,  # the engine stops a container within 90 s
    Lane.OTA: 7200.0,  # a build says nothing for as long as its compiler runs
    Lane.COMMAND: 600.0,  # `run_command` takes 60 s, a look through 10^6 rows on a slow card longer
}


class WakingPipe:
    """Wakes one thread that sleeps in `wait`; also from a signal handler (`signal.set_wakeup_fd`)."""

    def __init__(self) -> None:
        self._read = self._write = -1

    def open(self) -> int:
        """Returns the descriptor that wakes."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return self._write

    def close(self) -> None:
        ends, self._read, self._write = (self._read, self._write), -1, -1
        for end in ends:
            os.close(end)

    def wait(self, timeout_s: float, *others: int) -> bool:
        """Until `wake` (True), the time-out, or something to be read at one of the `others`."""
        woken = self._read in select.select([self._read, *others], [], [], timeout_s)[0]
        if woken:
            os.read(self._read, 4096)
        return woken

    def wake(self) -> None:
        """Where nobody waits, this is nothing."""
        if self._write >= 0:
            with suppress(OSError):  # full, or closed at this moment
                os.write(self._write, b"\0")


class WakeUp:
    """Wakes one idle worker of a lane at once when this process enqueues; `notify_all` for everything else.

    A condition a lane: nobody is woken for what is not theirs, which at rest is most of what a gateway costs.
    """

    def __init__(self) -> None:
        self._changed = {lane: threading.Condition() for lane in Lane}
        self._notified = dict.fromkeys(Lane, 0)
        self.scheduler = WakingPipe()

    def count(self, lane: Lane) -> int:
        return self._notified[lane]

    def notify(self, lane: Lane) -> None:
        """One task more: a worker that is not asleep looks by itself before it falls asleep."""
        with self._changed[lane]:
            self._notified[lane] += 1
            self._changed[lane].notify()

    def notify_all(self) -> None:
        for lane in Lane:
            with self._changed[lane]:
                self._notified[lane] += 1
                self._changed[lane].notify_all()
        self.scheduler.wake()

    def wait(self, lane: Lane, seen: int, timeout_s: float) -> None:
        """Return when `lane` was notified since `seen` was read, or after the time-out."""
        with self._changed[lane]:
            self._changed[lane].wait_for(lambda: self._notified[lane] != seen, timeout_s)
