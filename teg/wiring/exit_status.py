"""The exit status is the one that was meant, also where the last lines cannot be written.

Python flushes its output at its end, and makes 120 of any status when that fails. Output that is a file on a full disk,
or a pipe that nobody reads any more, would so turn an orderly stop into a failure for the service manager.
"""

import atexit
import os
import sys
from pathlib import Path


def let_go_of_output() -> None:
    """What cannot be written now is not written: `/dev/null` takes it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None or stream.closed:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if Path(sys.argv[0]).name == "huey_consumer":  # not where tests and tools import the gateway
    atexit.register(let_go_of_output)
