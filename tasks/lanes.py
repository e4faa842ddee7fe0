"""The lanes of the queue and their workers."""

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
