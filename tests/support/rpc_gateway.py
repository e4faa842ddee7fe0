"""A gateway that answers remote calls, and a look at what they did."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.rpc import RpcHandle
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import RunningGateway

RPC_FILTER = "v1/devices/me/rpc/request/+"


TS = 1_767_225_600_000


@contextmanager
def running(server: ThingsBoard, device: Device, path: Path, **environment: str) -> Iterator[RunningGateway]:
    with RunningGateway(
        path, server.host, server.port, "T1", **{"TEG_RPC_RUN_COMMAND": "on", **environment}
    ) as gateway:
        device.wait_subscribed(RPC_FILTER, timeout_s=30)
        yield gateway


def message(handle: RpcHandle, timeout_s: float | None = None) -> Any:
    outcome = handle.wait(timeout_s)
    assert outcome.status == 200, outcome
    return outcome.response["message"]


def ask(device: Device, method: str, params: Any = None, timeout_s: float = 20.0) -> Any:
    """The answer; what the gateway refused because of too many calls did nothing and is asked again."""
    while str(answer := message(device.rpc_async(method, params, timeout_s))).startswith("Error - too many calls"):
        time.sleep(0.3)
    return answer


def archive(device: Device) -> dict[str, Any]:
    """The archive's account."""
    return dict(ask(device, "status")["archive"])


def noting(path: Path, then: str = "") -> dict[str, Any]:
    """A command that leaves one line for every run."""
    return {"command": ["sh", "-c", f"echo run >> {path}; {then}"], "timeout_s": 30}


def runs(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def begun(gateway: RunningGateway, effects: Path) -> Callable[[], bool]:
    return lambda: runs(effects) == 1 and bool(gateway.rows("SELECT 1 FROM rpc_call WHERE state = 'begun'"))


def processes() -> str:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return "\n".join(found)
