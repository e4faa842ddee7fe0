"""A stop that comes while the program is still being loaded.

Loading takes seconds on a Pi-class machine, and a service manager may change its mind meanwhile: the process then
ends with status 0, as at any other moment. Nothing is open yet, so there is nothing to close. Imported by `gateway.py`
before anything else; what Python and Huey load before that ends as any program does. The consumer's own handlers
replace these.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType


def _stop(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


if Path(sys.argv[0]).name == "huey_consumer":  # not where tests and tools import the gateway
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
