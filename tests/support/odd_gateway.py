"""The gateway with two tasks that no gateway should have: `huey_consumer tests.support.odd_gateway.huey`."""

import time

import gateway
from tasks.lanes import Lane
from tasks.queue import huey as huey
from tasks.queue import task

assert gateway.huey is huey


@task(name="hold", lane=Lane.WORK)
def hold(seconds: float, path: str) -> None:
    """Keep a worker busy; leave a file behind when begun and one when done."""
    with open(f"{path}.begun", "w"):
        time.sleep(seconds)
    with open(f"{path}.done", "w"):
        pass


@task(name="leave", lane=Lane.RPC)
def leave(code: int) -> None:
    """What a library that calls sys.exit() does to a worker."""
    raise SystemExit(code)
