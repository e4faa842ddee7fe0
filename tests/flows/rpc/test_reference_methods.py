"""The reference's ten methods and their texts, from the listener's task to the answer, in immediate mode."""

from typing import Any

import pytest

from teg.domain.ports import CommandResult
from tests.support.rpc import RANGE, Rig


def test_list_is_the_references_text_then_our_methods(rig: Rig) -> None:
    assert rig.call(0, "list")[:10] == [
        "Available RPC methods:",
        "reboot: Reboot the device",
        "shutdown: Shutdown the device",
        "exit: Exits the gateway process (triggers gateway restart)",
        "ping: Ping the device (returns 'pong' reply)",
        "init_files: Initialize file-related client attributes (FILE_HASHES, FILE_READ_*)",
        "restart_controller: Restart the controller docker container",
        "run_command: Run arbitrary command ({command: list [str], timeout_s: int [default 30s]}) - use with caution!",
        "archive_republish_messages: Republish messages from archive"
        " ({start_timestamp_ms: int, end_timestamp_ms: int})",
        "archive_discard_messages: Discard messages from archive ({start_timestamp_ms: int, end_timestamp_ms: int})",
    ]
    names = [line.partition(":")[0] for line in rig.call(1, "list")[10:]]
    assert names == ["status", "get_logs", "archive_stats", "dead_letters", "set_log_level"]


def test_ping(rig: Rig) -> None:
    assert rig.call(0, "ping") == "Pong"
    assert rig.call(1, "ping", {"any": ["thing"]}) == "Pong"


@pytest.mark.parametrize(
    ("method", "answer", "action"),
    [
        ("reboot", "OK - Rebooting", "reboot"),
        ("shutdown", "OK - Shutting down", "shutdown"),
        ("exit", "OK - Exiting", "exit"),
    ],
)
def test_power_acts_after_the_acknowledged_answer(rig: Rig, method: str, answer: str, action: str) -> None:
    answered_first: list[bool] = []
    rig.machine.at_action = lambda: answered_first.append(rig.session.sent[-1][1] == answer)
    assert rig.call(7, method) == answer
    assert rig.machine.actions == [action]
    assert answered_first == [True]


def test_restart_controller(rig: Rig) -> None:
    assert rig.call(3, "restart_controller") == "OK - Restarting Controller"
    assert rig.controller.restarts == ["asked for by RPC"]


def test_init_files(rig: Rig) -> None:
    assert rig.call(3, "init_files") == "Files client attributes initialized"
    assert len(rig.inits) == 1


def test_run_command_in_the_references_words(rig: Rig) -> None:
    rig.machine.result = CommandResult(0, "total 0\n", False, False)
    assert rig.call(3, "run_command", {"command": ["ls", "-l"]}) == (
        "OK - Command executed - Command '['ls', '-l']' exited with code 0. Output: total 0\n"
    )
    assert rig.machine.runs == [(["ls", "-l"], 30)]


def test_a_failing_command_is_also_ok(rig: Rig) -> None:
    rig.machine.result = CommandResult(2, "no such file\n", False, False)
    assert rig.call(3, "run_command", {"command": ["ls", "/x"], "timeout_s": 5}) == (
        "OK - Command executed - Command '['ls', '/x']' exited with code 2. Output: no such file\n"
    )


def test_run_command_timeout_in_the_references_words(rig: Rig) -> None:
    rig.machine.result = CommandResult(None, "begun\n", True, False)
    assert rig.call(3, "run_command", {"command": ["sleep", "9"], "timeout_s": 2}) == (
        "Error - Error running command '['sleep', '9']': Timeout after 2 seconds. Output: begun\n"
    )


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (None, "params is not a dictionary"),
        (["ls"], "params is not a dictionary"),
        ("ls", "params is not a dictionary"),
        ({}, "missing 'command' in params"),
        ({"command": "ls"}, "'command' must be a list of strings"),
        ({"command": []}, "'command' must be a list of strings"),
        ({"command": ["ls", 1]}, "'command' must be a list of strings"),
        ({"command": ["ls"], "timeout_s": "5"}, "'timeout_s' must be an integer"),
        ({"command": ["ls"], "timeout_s": 5.5}, "'timeout_s' must be an integer"),
        ({"command": ["ls"], "timeout_s": True}, "'timeout_s' must be an integer"),
        ({"command": ["ls"], "timeout_s": 61}, "'timeout_s' must be from 1 to 60"),
        ({"command": ["ls"], "timeout_s": 0}, "'timeout_s' must be from 1 to 60"),
        ({"command": [""]}, "'command' must name a program and must not contain NUL characters"),
        ({"command": ["ls", "a\0b"]}, "'command' must name a program and must not contain NUL characters"),
        ({"command": ["a"] * 257}, "'command' has 257 parts, at most 256 are allowed"),
    ],
)
def test_run_command_parameter_errors(rig: Rig, params: Any, text: str) -> None:
    assert rig.call(3, "run_command", params) == f"Error - Running command failed: {text}"
    assert rig.machine.runs == []


def test_republish_marks_the_range_with_both_ends(rig: Rig) -> None:
    assert rig.call(3, "archive_republish_messages", RANGE) == (
        "OK - 10 messages republished - 1767225600000 -> 1767312000000"
    )
    assert rig.archive.asked == [("mark", 1_767_225_600_000, 1_767_312_000_000)]


def test_discard_says_how_many(rig: Rig) -> None:
    assert rig.call(3, "archive_discard_messages", RANGE | {"start_timestamp_ms": 0}) == (
        "OK - 10 messages discarded - 0 -> 1767312000000"
    )
    assert rig.archive.asked == [("discard", 0, 1_767_312_000_000)]


@pytest.mark.parametrize("doing", ["Republishing", "Discarding"])
@pytest.mark.parametrize(
    ("params", "text"),
    [
        (None, "params is not a dictionary"),
        ([], "params is not a dictionary"),
        ({}, "missing 'start_timestamp_ms' or 'end_timestamp_ms' in params"),
        ({"start_timestamp_ms": 1}, "missing 'start_timestamp_ms' or 'end_timestamp_ms' in params"),
        (
            {"start_timestamp_ms": "1", "end_timestamp_ms": 2},
            "'start_timestamp_ms' and 'end_timestamp_ms' must be integers",
        ),
        (
            {"start_timestamp_ms": True, "end_timestamp_ms": 2},
            "'start_timestamp_ms' and 'end_timestamp_ms' must be integers",
        ),
        (
            {"start_timestamp_ms": 1.0, "end_timestamp_ms": 2},
            "'start_timestamp_ms' and 'end_timestamp_ms' must be integers",
        ),
        ({"start_timestamp_ms": 2, "end_timestamp_ms": 1}, "'start_timestamp_ms' must be less than 'end_timestamp_ms'"),
        ({"start_timestamp_ms": 2, "end_timestamp_ms": 2}, "'start_timestamp_ms' must be less than 'end_timestamp_ms'"),
    ],
)
def test_archive_parameter_errors(rig: Rig, doing: str, params: Any, text: str) -> None:
    method = "archive_republish_messages" if doing == "Republishing" else "archive_discard_messages"
    assert rig.call(3, method, params) == f"Error - {doing} archived messages failed: {text}"
    assert rig.archive.asked == []


@pytest.mark.parametrize(
    ("start_ms", "end_ms"), [(1_735_719_469_000, 1_767_312_000_000), (1_767_312_000_000, 2_524_637_869_000)]
)
def test_republish_keeps_the_references_bounds(rig: Rig, start_ms: int, end_ms: int) -> None:
    params = {"start_timestamp_ms": start_ms, "end_timestamp_ms": end_ms}
    assert rig.call(3, "archive_republish_messages", params) == (
        "Error - Republishing archived messages failed: 'start_timestamp_ms' and 'end_timestamp_ms' must be within the"
        " range of 1735719469_000 and 2524637869_000"
    )


def test_discard_keeps_the_references_bound(rig: Rig) -> None:
    params = {"start_timestamp_ms": 1, "end_timestamp_ms": 2_524_637_869_000}
    assert rig.call(3, "archive_discard_messages", params) == (
        "Error - Discarding archived messages failed: 'end_timestamp_ms' must be < 2524637869_000"
    )


@pytest.mark.parametrize(
    ("method", "doing"), [("archive_republish_messages", "Republishing"), ("archive_discard_messages", "Discarding")]
)
def test_an_archive_that_does_not_answer(rig: Rig, method: str, doing: str) -> None:
    rig.archive.broken = True
    assert rig.call(3, method, RANGE) == f"Error - {doing} archived messages failed: archive database unavailable"


def test_unknown_methods_are_named(rig: Rig) -> None:
    assert rig.call(3, "make_coffee") == (
        "Unknown RPC method: 'make_coffee' - use command 'list' to get a list of available methods"
    )
    assert len(rig.call(4, "x" * 100_000)) < 250


def test_a_defect_in_a_method_is_an_answer_too(rig: Rig) -> None:
    rig.machine.broken = ZeroDivisionError("division by zero")
    assert rig.call(3, "run_command", {"command": ["ls"]}) == (
        "Error executing RPC method 'run_command': division by zero"
    )
