"""Remote calls through a real consumer and the ThingsBoard stand-in: answers, at most once, exit and stop."""

import re
import time
from pathlib import Path

from tasks.lanes import WORKERS, Lane
from teg.domain.ports import EXIT_STATUS
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import next_n, when
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.rpc_gateway import RPC_FILTER, ask, begun, message, noting, processes, running, runs
from tests.support.running import RunningGateway, wait_until

# --- answers -----------------------------------------------------------------------------------------------


def test_the_first_methods_an_operator_tries(gateway: RunningGateway, device: Device) -> None:
    assert ask(device, "ping") == "Pong"
    assert ask(device, "list")[0] == "Available RPC methods:"
    assert ask(device, "run_command", {"command": ["echo", "hi"]}) == (
        "OK - Command executed - Command '['echo', 'hi']' exited with code 0. Output: hi\n"
    )
    status = ask(device, "status")
    assert status["connection"]["connected"] is True
    assert status["archive"]["pending"] == 0
    assert status["versions"]["huey"]
    assert status["disk"]["free_bytes"] > 0
    assert any("connected to" in line for line in ask(device, "get_logs", {"lines": 100}))
    assert ask(device, "archive_stats")["rows"] == 0
    assert ask(device, "dead_letters") == {"dead_letters": []}
    assert ask(device, "set_log_level", {"level": "DEBUG", "minutes": 1}) == "OK - Log level DEBUG for 1 minutes"
    assert ask(device, "restart_controller") == (
        "Error - the controller cannot be restarted: no controller is supervised here (TEG_CONTROLLER_RUNTIME=none)"
    )
    assert ask(device, "get_logs", {"source": "controller"}).startswith("Error - ")


def test_ping_overtakes_everything_that_takes_time(gateway: RunningGateway, device: Device, tmp_path: Path) -> None:
    """Order, not time: the ping made last is answered while the command made first still runs."""
    command = device.rpc_async("run_command", noting(tmp_path / "effects", "sleep 60"), 60)
    wait_until(begun(gateway, tmp_path / "effects"), 20, "the command runs")
    for _ in range(5):
        assert ask(device, "ping") == "Pong"
    assert ask(device, "run_command", {"command": ["true"]}).startswith("Error - busy: run_command is going on")
    assert ask(device, "archive_stats")["rows"] == 0
    assert not command.done


def test_ping_is_answered_with_every_other_worker_stuck(server: ThingsBoard, device: Device, tmp_path: Path) -> None:
    """Archive, publish, files, Docker, update, commands: none of them can make room, and none has to."""
    gateway = RunningGateway(tmp_path, server.host, server.port, "T1", TEG_RPC_RUN_COMMAND="on")
    gateway.start("tests.support.blocked_gateway.huey")
    try:
        device.wait_subscribed(RPC_FILTER, timeout_s=30)
        stuck = sum(count for lane, count in WORKERS.items() if lane is not Lane.RPC)
        wait_until(lambda: gateway.log().count("stuck: ") == stuck, 30, f"{stuck} workers are stuck")
        waiting = device.rpc_async("run_command", {"command": ["true"]}, 60)
        for _ in range(10):
            assert ask(device, "ping") == "Pong"
        assert not waiting.done
    finally:
        gateway.kill()


def test_a_flood_is_answered_one_by_one(gateway: RunningGateway, device: Device) -> None:
    handles = [device.rpc_async("ping", n, 60) for n in range(300)]
    answers = [message(handle) for handle in handles]
    assert answers.count("Pong") >= 20
    assert set(answers) <= {"Pong", "Error - too many calls: more than 5 a second, try again later"}
    assert len(device.published_to("v1/devices/me/rpc/response/7")) == 1
    assert device.stale_rpc_responses == []


def test_answers_stay_below_the_payload_limit(gateway: RunningGateway, device: Device) -> None:
    answer = ask(device, "run_command", {"command": ["sh", "-c", "yes | head -c 5000000"], "timeout_s": 20})
    assert "bytes left out" in answer or "characters left out" in answer
    assert max(len(publish.payload) for publish in device.publishes) <= 60_000
    assert len(device.sessions) == 1, "the server did not close the session"


# --- at most once ------------------------------------------------------------------------------------------


def test_a_request_delivered_twice_runs_once(
    gateway: RunningGateway, server: ThingsBoard, device: Device, tmp_path: Path
) -> None:
    server.faults.duplicate_rpc = next_n(1)
    assert ask(device, "run_command", noting(tmp_path / "effects")).startswith("OK - ")
    ask(device, "ping")
    assert runs(tmp_path / "effects") == 1


def test_a_connection_that_breaks_during_the_call_changes_nothing(
    gateway: RunningGateway, server: ThingsBoard, device: Device, tmp_path: Path
) -> None:
    """The server sends the pending call again after the reconnect; it is answered by the run that goes on."""
    handle = device.rpc_async("run_command", noting(tmp_path / "effects", "sleep 3; echo done"), 60)
    wait_until(begun(gateway, tmp_path / "effects"), 20, "the command runs")
    server.reset_connections()
    assert message(handle).endswith("exited with code 0. Output: done\n")
    assert handle.deliveries >= 2
    assert runs(tmp_path / "effects") == 1


def test_an_answer_that_was_lost_is_given_again(
    gateway: RunningGateway, server: ThingsBoard, device: Device, tmp_path: Path
) -> None:
    """The connection ends after the command and before its answer arrives."""

    server.faults.reset = when(lambda publish: publish.topic.startswith("v1/devices/me/rpc/response/"), 1)
    handle = device.rpc_async("run_command", noting(tmp_path / "effects", "echo done"), 60)
    assert message(handle).endswith("Output: done\n")
    assert handle.deliveries >= 2
    assert runs(tmp_path / "effects") == 1


def test_kill_9_between_intent_and_answer_is_told_and_not_run_again(
    gateway: RunningGateway, device: Device, tmp_path: Path
) -> None:
    marker = f"sleep 29{time.time_ns() % 10**6}"
    handle = device.rpc_async("run_command", noting(tmp_path / "effects", marker), 60)
    wait_until(begun(gateway, tmp_path / "effects"), 20, "the command runs")
    gateway.kill()
    assert marker in processes()
    gateway.start()
    assert message(handle, 40).startswith("Error - interrupted: it is not known how far 'run_command' came")
    assert marker not in processes(), "what the killed gateway left running is ended"
    assert runs(tmp_path / "effects") == 1
    assert gateway.rows("SELECT state FROM rpc_call WHERE method = 'run_command'") in (
        [("interrupted",)],
        [("acknowledged",)],
    )


def test_an_id_used_again_after_a_server_restart_is_a_new_call(
    gateway: RunningGateway, server: ThingsBoard, device: Device, tmp_path: Path
) -> None:
    first = device.rpc_async("run_command", noting(tmp_path / "a"), 20)
    assert message(first).startswith("OK - ")
    sessions = len(device.sessions)
    server.restart()
    wait_until(lambda: len(device.sessions) > sessions, 30, "reconnected")
    device.wait_subscribed(RPC_FILTER, timeout_s=30)
    second = device.rpc_async("run_command", noting(tmp_path / "b"), 20)
    assert message(second).startswith("OK - ")
    assert first.id == second.id == 0
    assert (runs(tmp_path / "a"), runs(tmp_path / "b")) == (1, 1)


def test_a_call_before_the_suback_is_answered(
    gateway: RunningGateway, server: ThingsBoard, device: Device, tmp_path: Path
) -> None:
    server.faults.rpc_before_suback = True
    server.faults.suback_delay_s = 0.5
    server.stop_listening()
    device.wait_disconnected()
    handles = [
        device.rpc_async("ping", None, 60),
        device.rpc_async("run_command", noting(tmp_path / "effects"), 60),
    ]
    server.start_listening()
    assert message(handles[0], 40) == "Pong"
    assert message(handles[1], 40).startswith("OK - ")
    assert runs(tmp_path / "effects") == 1


def test_a_persistent_call_waits_for_the_gateway_and_runs_once(
    server: ThingsBoard, device: Device, tmp_path: Path
) -> None:
    handle = device.rpc_async("run_command", noting(tmp_path / "effects"), 60, persistent=True)
    with running(server, device, tmp_path / "gateway") as gateway:
        wait_until(lambda: handle.state == "SUCCESSFUL", 30, "the persistent call is done")
        gateway.kill()
        gateway.start()
        device.wait_subscribed(RPC_FILTER, timeout_s=30)
        assert ask(device, "ping") == "Pong"
    assert runs(tmp_path / "effects") == 1


def test_a_one_way_call_needs_nobody_to_wait(gateway: RunningGateway, device: Device, tmp_path: Path) -> None:
    device.rpc_async("run_command", noting(tmp_path / "effects"), one_way=True)
    wait_until(lambda: runs(tmp_path / "effects"), 20, "the command ran")
    assert ask(device, "ping") == "Pong"


# --- exit and stop -----------------------------------------------------------------------------------------


def test_exit_is_answered_ends_the_process_and_is_not_repeated(gateway: RunningGateway, device: Device) -> None:
    assert ask(device, "exit") == "OK - Exiting"
    assert gateway.wait_exit() == EXIT_STATUS
    gateway.start()
    device.wait_subscribed(RPC_FILTER, timeout_s=30)
    assert re.fullmatch(r"Error - exit is done at most once in 300 s, try again in \d+ s", ask(device, "exit"))
    assert ask(device, "ping") == "Pong"


def test_exit_waits_for_the_acknowledgement(gateway: RunningGateway, server: ThingsBoard, device: Device) -> None:
    """The PUBACK of the first answer is lost with the connection: the process only ends after the second one."""

    server.faults.reset = when(lambda publish: publish.payload == b'{"message":"OK - Exiting"}', 1)
    assert ask(device, "exit", timeout_s=60) == "OK - Exiting"
    assert gateway.wait_exit(40) == EXIT_STATUS
    assert gateway.rows("SELECT state FROM rpc_call") == [("acted",)]


def test_a_graceful_stop_ends_a_running_command_and_says_so(
    gateway: RunningGateway, device: Device, tmp_path: Path
) -> None:
    marker = f"sleep 59{time.time_ns() % 10**6}"
    handle = device.rpc_async("run_command", noting(tmp_path / "effects", marker), 60)
    wait_until(begun(gateway, tmp_path / "effects"), 20, "the command runs")
    assert gateway.stop() == 0
    assert marker not in processes()
    gateway.start()
    assert message(handle, 40) == "Error - the gateway is stopping; the command was killed"
    assert runs(tmp_path / "effects") == 1
