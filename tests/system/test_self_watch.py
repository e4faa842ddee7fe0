"""Real processes with a thread that stands end by themselves, with what they had saved; a stopped one does not."""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from teg.domain.ports import STUCK_STATUS
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, message, wait_until

FIRST = ("n", 1_767_225_600_001)
#: What each one logs, and through which call it stands.
STUCK = {
    "worker": "stuck: a worker of lane work, since 'send_auxiliary_telemetry'",
    "feed": "stuck: the watch of the inbox, since 'looks into the inbox'",
    "network": "stuck: the network thread, since 'serves the connection'",
}


def site(path: Path, server: ThingsBoard, name: str) -> RunningGateway:
    server.add_device(name, token=f"token-of-{name}")
    gateway = RunningGateway(path / name, server.host, server.port, f"token-of-{name}", STUCK=name)
    gateway.environment["STUCK_GO"] = str(path / f"{name}.go")
    os.mkfifo(path / f"{name}.fifo")
    return gateway


@pytest.mark.slow
def test_a_thread_that_stands_ends_the_process_and_a_stop_of_all_does_not(tmp_path: Path) -> None:
    with ThingsBoard() as server, ExitStack() as stack:
        gateways = {name: site(tmp_path, server, name) for name in (*STUCK, "stopped")}
        for name, gateway in gateways.items():
            stack.enter_context(gateway_of(gateway))
            server.device(name).wait_connected(60)
        for name in STUCK:
            (tmp_path / f"{name}.go").touch()
            record_one(gateways[name])
            server.device(name).set_shared({"anything": 1})
        assert gateways["stopped"].process is not None
        os.kill(gateways["stopped"].process.pid, signal.SIGSTOP)

        for name, gateway in gateways.items():
            if name in STUCK:
                wait_until((tmp_path / f"{name}.standing").exists, 60, f"the {name} stands")
                assert gateway.wait_exit(90) == STUCK_STATUS
                line = next(line for line in gateway.log().splitlines() if STUCK[name] in line)
                assert "stuck_gateway.py" in line and " stand" in line, "it says where"
                assert gateway.rows("SELECT count(*) FROM record WHERE message LIKE '%stuck: %'") != [(0,)], (
                    "the last lines are kept for the server"
                )

        time.sleep(3)  # five checks' worth and more have passed by now; this one makes it certain for a quick machine
        os.kill(gateways["stopped"].process.pid, signal.SIGCONT)
        record_one(gateways["stopped"])
        server.device("stopped").wait_for(lambda device: device.telemetry().get(FIRST) == 1, 60, "it goes on")
        assert "stuck: " not in gateways["stopped"].log()


def record_one(gateway: RunningGateway) -> None:
    inbox = ControllerInbox(gateway.inbox_path)
    inbox.insert(message(1))
    inbox.close()


def gateway_of(gateway: RunningGateway) -> ExitStack:
    stack = ExitStack()
    gateway.start(target="tests.support.stuck_gateway.huey")
    stack.callback(gateway.kill)
    return stack
