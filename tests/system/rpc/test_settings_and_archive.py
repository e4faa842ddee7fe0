"""Remote calls through a real consumer: the journal, what settings allow, and the archive."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.rpc_gateway import RPC_FILTER, TS, archive, ask, running
from tests.support.running import ControllerInbox, RunningGateway, wait_until

# --- journal and settings ------------------------------------------------------------------------------------


def test_every_call_is_in_the_journal_after_a_stop(gateway: RunningGateway, device: Device) -> None:
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
