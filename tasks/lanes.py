"""The lanes of the queue, their workers, and what wakes an idle worker at once."""

import threading
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


class WakeUp:
    """Wakes the idle worker of a lane at once when this process enqueues; `notify_all` for everything else."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._notified = dict.fromkeys(Lane, 0)

    def count(self, lane: Lane) -> int:
        return self._notified[lane]

    def notify(self, lane: Lane) -> None:
        with self._changed:
            self._notified[lane] += 1
            self._changed.notify_all()

    def notify_all(self) -> None:
        with self._changed:
            for lane in Lane:
                self._notified[lane] += 1
            self._changed.notify_all()

    def wait(self, lane: Lane, seen: int, timeout_s: float) -> None:
        """Return when `lane` was notified since `seen` was read, or after the time-out."""
        with self._changed:
            self._changed.wait_for(lambda: self._notified[lane] != seen, timeout_s)
