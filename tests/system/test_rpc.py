"""Remote calls through a real consumer and the ThingsBoard stand-in."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tasks.lanes import WORKERS, Lane
from teg.domain.ports import EXIT_STATUS
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import next_n, when
from teg.simulator.thingsboard.rpc import RpcHandle
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, wait_until

RPC_FILTER = "v1/devices/me/rpc/request/+"
TS = 1_767_225_600_000


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        yield server


@pytest.fixture
def device(server: ThingsBoard) -> Device:
    return server.add_device("pi-07", token="T1")


@pytest.fixture
def gateway(server: ThingsBoard, device: Device, tmp_path: Path) -> Iterator[RunningGateway]:
    with running(server, device, tmp_path) as gateway:
        yield gateway


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


def processes() -> str:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return "\n".join(found)


# --- books and settings ------------------------------------------------------------------------------------


def test_every_call_is_in_the_books_after_a_stop(gateway: RunningGateway, device: Device) -> None:
    ask(device, "ping", {"token": "hunter2"})
    ask(device, "no_such_method")
    ask(device, "run_command", {"command": ["true", "--password=hunter2"]})
    assert gateway.stop() == 0
    assert gateway.rows("SELECT method, state FROM rpc_call ORDER BY method") == [
        ("no_such_method", "done"),
        ("ping", "done"),
        ("run_command", "acknowledged"),
    ]
    params = [str(row[0]) for row in gateway.rows("SELECT params FROM rpc_call")]
    assert "hunter2" not in "".join(params) and "hunter2" not in gateway.log()


def test_commands_are_off_and_methods_can_be_disabled(server: ThingsBoard, device: Device, tmp_path: Path) -> None:
    with running(server, device, tmp_path, TEG_RPC_RUN_COMMAND="", TEG_RPC_DISABLED="reboot, shutdown"):
        assert "TEG_RPC_RUN_COMMAND" in ask(device, "run_command", {"command": ["true"]})
        assert ask(device, "reboot").startswith("Error - RPC method 'reboot' is disabled")


def test_an_allow_list_file(server: ThingsBoard, device: Device, tmp_path: Path) -> None:
    allowed = tmp_path / "commands.toml"
    allowed.write_text('[commands.hello]\nargv = ["echo", "hello", "{n}"]\nparameters.n = { type = "integer" }\n')
    with running(server, device, tmp_path / "gateway", TEG_RPC_RUN_COMMAND=str(allowed)):
        assert ask(device, "run_command", {"name": "hello", "args": {"n": 5}}).endswith("Output: hello 5\n")
        assert ask(device, "run_command", {"command": ["id"]}).startswith("Error - Running command failed: missing")


def test_an_allow_list_with_an_error_stops_the_start(server: ThingsBoard, tmp_path: Path) -> None:
    allowed = tmp_path / "commands.toml"
    allowed.write_text('[commands.hello]\nargv = "echo hello"\n')
    with RunningGateway(
        tmp_path / "gateway", server.host, server.port, "T1", TEG_RPC_RUN_COMMAND=str(allowed)
    ) as gateway:
        assert gateway.wait_exit() == 1
        assert "commands.hello: argv must be a list of strings" in gateway.log()
        assert "Traceback" not in gateway.log()


# --- the archive -------------------------------------------------------------------------------------------


@pytest.fixture
def inbox(gateway: RunningGateway) -> Iterator[ControllerInbox]:
    with closing(ControllerInbox(gateway.inbox_path)) as inbox:
        yield inbox


def measured(device: Device) -> list[int]:
    """Time stamps of the controller's records as they came; the gateway's own lines come in between."""
    return [ts for ts, values in device.records() if "t" in values]


def test_republish_and_discard_include_both_ends(
    gateway: RunningGateway, device: Device, inbox: ControllerInbox
) -> None:
    for n in range(8):
        inbox.insert(f'{{"ts":{TS + n},"values":{{"t":{n}}}}}')
    device.wait_for(lambda d: len(measured(d)) >= 8, 20, "eight records")
    wait_until(lambda: archive(device).get("stored") == 8, 120, "proven to be stored: nothing else is discarded")
    span = {"start_timestamp_ms": TS + 1, "end_timestamp_ms": TS + 3}
    assert ask(device, "archive_republish_messages", span) == (f"OK - 3 messages republished - {TS + 1} -> {TS + 3}")
    device.wait_for(lambda d: len(measured(d)) >= 11, 20, "three records again")
    assert measured(device)[8:] == [TS + 1, TS + 2, TS + 3]
    wait_until(lambda: archive(device).get("republish_pending") == 0, 20, "republished")
    span = {"start_timestamp_ms": TS + 4, "end_timestamp_ms": TS + 6}
    assert ask(device, "archive_discard_messages", span) == f"OK - 3 messages discarded - {TS + 4} -> {TS + 6}"
    assert gateway.rows("SELECT ts FROM record WHERE kind = 0 ORDER BY ts") == [(TS + n,) for n in (0, 1, 2, 3, 7)]


def test_a_republish_cut_off_by_kill_9_goes_on_and_live_data_does_not_wait(
    gateway: RunningGateway, server: ThingsBoard, device: Device, inbox: ControllerInbox
) -> None:
    rows = 20_000
    inbox.insert_many(f'{{"ts":{TS + n},"values":{{"t":{n}}}}}' for n in range(rows))
    device.wait_for(lambda d: d.records_received >= rows, 60, "all records")
    wait_until(lambda: archive(device).get("pending") == 0, 30, "all acknowledged")
    span = {"start_timestamp_ms": TS, "end_timestamp_ms": TS + rows}
    server.faults.puback_delay_s = 1.0
    before, received = len(device.records()), device.records_received
    assert ask(device, "archive_republish_messages", span).startswith(f"OK - {rows} messages republished")
    device.wait_for(lambda d: d.records_received > received, 20, "the republish begins")
    gateway.kill()
    left = gateway.rows("SELECT count(*) FROM outbox WHERE lane = 2")[0][0]
    assert isinstance(left, int) and 0 < left <= rows, "killed in the middle"
    gateway.start()
    device.wait_subscribed(RPC_FILTER, timeout_s=30)
    inbox.insert(f'{{"ts":{TS + 10**9},"values":{{"live":1}}}}')
    device.wait_for(lambda d: d.latest("live") == 1, 30, "the live record")
    assert gateway.rows("SELECT count(*) FROM outbox WHERE lane = 2")[0][0] != 0, "it overtook the republish"
    server.faults.clear()
    wait_until(lambda: archive(device).get("republish_pending") == 0, 60, "the republish is done")
    again = {ts for ts, values in device.records()[before:] if "t" in values}
    assert again == {TS + n for n in range(rows)}


def test_dead_letters_can_be_seen_and_dropped(device: Device, inbox: ControllerInbox) -> None:
    inbox.insert('{"values":{"t":1}}')
    wait_until(lambda: ask(device, "dead_letters")["dead_letters"], 20, "the letter is set aside")
    (letter,) = ask(device, "dead_letters")["dead_letters"]
    assert letter["reason"] == "'ts' is missing"
    assert ask(device, "dead_letters", {"action": "retry", "ids": [letter["id"]]}).startswith("OK - 0 ")
    assert ask(device, "dead_letters", {"action": "drop", "ids": "all"}) == "OK - 1 dead letters dropped"
    assert ask(device, "dead_letters") == {"dead_letters": []}
