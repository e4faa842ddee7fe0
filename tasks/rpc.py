"""What the queue runs for a call from the server: take it, do what takes time, and keep the journal."""

from typing import Any

from tasks.lanes import Lane
from tasks.queue import huey, task
from teg.domain.server.wire import RpcRequest

#: ThingsBoard gives up on an ordinary call after 10 s: running it later would act for nobody.
EXPIRES_S = 10


@task(name="handle_rpc", lane=Lane.RPC, priority=100, expires_s=EXPIRES_S)
def handle_rpc(request_id: int, method: str, params: Any) -> None:
    """Answer what is quick; hand the rest to its own lane."""
    deadline_ms = huey.services.calls.take(RpcRequest(request_id, method, params))
    if deadline_ms is not None:
        run_rpc(request_id, method, params, deadline_ms)


@task(name="run_rpc", lane=Lane.COMMAND, priority=100)
def run_rpc(request_id: int, method: str, params: Any, deadline_ms: int) -> None:
    """Do what may take up to a minute; it does not run, and says so, when it was not begun by `deadline_ms`."""
    huey.services.calls.run(RpcRequest(request_id, method, params), deadline_ms)


@task(name="refuse_rpc", lane=Lane.RPC, priority=100, expires_s=EXPIRES_S)
def refuse_rpc(request_id: int, reason: str) -> None:
    """Answer a call that could not even be understood: no method, too large, nested too deeply."""
    huey.services.calls.refuse(request_id, reason)


@task(name="tend_rpc", lane=Lane.WORK, expires_s=60)
def tend_rpc() -> None:
    """Write the audit of the quick calls, forget what is old, take back a temporary log level."""
    huey.services.log_level.revert_if_due()
    huey.services.calls.tend()
