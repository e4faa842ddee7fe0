"""How many of our files a record, a remote call and an update enter, from beginning to end, in a running gateway.

python -m bench.hops

Counted is every file of ours of which a function is called by what comes in (a message or a PUBACK on the network
thread, a look into the inbox), or by a task that follows from it: for the record until it is proven to be stored, for
the call until it is noted, for the update (from Git, the controller as a plain process) until `UPDATED` has been told.
What idles beside them is not, nor what the confined process enters that reads the inbox.
"""

import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.ota_device import TRIAL_S, make_repository
from tests.support.running import ControllerInbox, RunningGateway, message, wait_until

CONNECTION = "teg/adapters/mqtt_session/connection.py"
MESSAGE = f"{CONNECTION}:_on_paho_message"
ACKNOWLEDGED = f"{CONNECTION}:_on_publish"
LOOK = "producers/controller_feed.py:_look"
RECORD_TASKS = ("archive_records", "publish_records", "prove_stored")
CALL_TASKS = ("handle_rpc", "run_rpc")
UPDATE_TASKS = ("handle_attribute_push", "read_software", "advance_update")
#: What a call still does after its answer has left, and a gateway after its connection came up.
SETTLE_S = 3.0


class Traced:
    def __init__(
        self, directory: Path, server: ThingsBoard, tasks: tuple[str, ...], *begins: str, **environment: str
    ) -> None:
        self.path = directory / "trace.json"
        self.device: Device = server.add_device("bench", token="T1")
        self.gateway = RunningGateway(
            directory, server.host, server.port, "T1",
            TRACE_PATH=str(self.path), TRACE_TASKS=",".join(tasks), TRACE_BEGINS=",".join(begins),
            **environment,
        )  # fmt: skip

    @contextmanager
    def running(self) -> Iterator["Traced"]:
        self.gateway.start("bench.traced_gateway.huey")
        try:
            self.device.wait_subscribed("v1/devices/me/rpc/request/+", timeout_s=60)
            yield self
        finally:
            self.gateway.kill()

    def entered(self, act: Callable[[], object]) -> dict[str, str]:
        """file → the function by which it was entered first, in the order of the walk."""
        time.sleep(SETTLE_S)
        self._signal(signal.SIGRTMIN)
        act()
        time.sleep(SETTLE_S)
        found: dict[str, str] = self._signal(signal.SIGRTMAX)
        return found

    def _signal(self, number: int) -> Any:
        assert self.gateway.process is not None
        self.path.unlink(missing_ok=True)
        self.gateway.process.send_signal(number)
        wait_until(self.path.exists, 20, "the traced gateway writes")
        return json.loads(self.path.read_text())


def call(directory: Path, method: str, params: Any = None) -> dict[str, str]:
    with ThingsBoard() as server:
        traced = Traced(directory, server, CALL_TASKS, MESSAGE, TEG_RPC_RUN_COMMAND="on")
        with traced.running():
            traced.device.rpc("ping", timeout_s=30)  # what is done only the first time is done
            found = traced.entered(lambda: traced.device.rpc(method, params, timeout_s=30))
    assert "teg/domain/rpc/dispatcher.py" in found, "the tasks of the call were not seen"
    return found


def record(directory: Path) -> dict[str, str]:
    with ThingsBoard() as server:
        traced = Traced(directory, server, RECORD_TASKS, LOOK, ACKNOWLEDGED, MESSAGE)
        with traced.running(), closing(ControllerInbox(traced.gateway.inbox_path)) as inbox:
            _measure(traced, inbox, 1)  # what is done only the first time is done
            found = traced.entered(lambda: _measure(traced, inbox, 2))
    assert "teg/domain/telemetry/storage_proof.py" in found, "the tasks of the record were not seen"
    return found


def _measure(traced: Traced, inbox: ControllerInbox, number: int) -> None:
    inbox.insert(message(number))
    stored = "SELECT value FROM counter WHERE name = 'stored'"
    wait_until(lambda: traced.gateway.rows(stored) == [(number,)], 60, f"record {number} is proven to be stored")


def update(directory: Path) -> dict[str, str]:
    repository = make_repository(directory / "controller-repository")
    with ThingsBoard() as server:
        traced = Traced(
            directory, server, UPDATE_TASKS, MESSAGE,
            TEG_CONTROLLER_RUNTIME="process",
            TEG_CONTROLLER_COMMAND=f"{sys.executable} -u main.py",
            TEG_CONTROLLER_GIT_PATH=str(repository / ".git"),
            TEG_OTA_TRIAL_S=str(TRIAL_S),
        )  # fmt: skip
        with traced.running():
            _assign(traced.device, "v1")
            found = traced.entered(lambda: _assign(traced.device, "v2"))
    assert "teg/domain/ota/rollout.py" in found, "the tasks of the update were not seen"
    return found


def _assign(device: Device, version: str) -> None:
    device.assign_software("controller", version)
    wanted = {"sw_state": "UPDATED", "current_sw_version": version}
    wait_until(
        lambda: any(wanted.items() <= values.items() for _, values in device.records()), 120, f"{version} is updated"
    )


def report(name: str, entered: Mapping[str, str]) -> None:
    print(f"{name}: {len(entered)} files")
    for number, (file, function) in enumerate(entered.items(), 1):
        print(f"{number:6}. {file} · {function}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        report("a record, from the look into the inbox until it is stored", record(directory / "record"))
        report("a call that is answered at once (ping)", call(directory / "ping", "ping"))
        command = {"command": ["true"]}
        report("a call that is noted first (run_command)", call(directory / "command", "run_command", command))
        report("an update", update(directory / "update"))


if __name__ == "__main__":
    main()
