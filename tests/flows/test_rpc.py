"""Every method and every text, from the listener's task to the answer, in immediate mode."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.lanes import Lane
from tasks.queue import huey
from tasks.rpc import handle_rpc, run_rpc, tend_rpc
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.ports import CommandResult
from teg.domain.rpc.command_allowlist import parse_command_list
from tests.support.rpc import Rig

RANGE = {"start_timestamp_ms": 1_767_225_600_000, "end_timestamp_ms": 1_767_312_000_000}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path / "gateway.db").serving() as rig:
        yield rig


# --- the reference's ten -----------------------------------------------------------------------------------


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
    assert rig.files.inits == 1


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


# --- our own -----------------------------------------------------------------------------------------------


def test_status_says_how_it_is(rig: Rig) -> None:
    status = rig.call(3, "status")
    assert status["versions"] == {"gateway": "0.1.0"}
    assert status["uptime_s"] == 60
    assert status["host_uptime_s"] == 10_000
    link = status["connection"]
    assert (link["connected"], link["sessions"], link["last_end"], link["shared_token"]) == (True, 1, "", False)
    assert status["archive"]["pending"] == 10
    assert status["archive"]["oldest_pending_age_s"] == 60
    assert status["disk"] == {"total_bytes": 32_000_000_000, "free_bytes": 8_000_000_000}
    assert status["controller"]["controller_state"] == "running"
    assert status["troubles"] == {"archive_records": "gateway.db: disk is full"}
    assert status["last_errors"] == ["an error"]
    assert status["log_level"] == "INFO"


def test_status_answers_also_when_the_archive_does_not(rig: Rig) -> None:
    rig.archive.broken = True
    status = rig.call(3, "status")
    assert status["archive"] == {"error": "gateway.db: database is locked"}
    assert status["disk"]["free_bytes"] == 8_000_000_000


def test_logs_of_the_gateway(rig: Rig) -> None:
    assert rig.call(3, "get_logs") == ["a warning", "an error"]
    assert rig.call(4, "get_logs", {"lines": 1}) == ["an error"]


def test_logs_of_the_controller(rig: Rig) -> None:
    assert rig.call(3, "get_logs", {"source": "controller", "lines": 9}) == [f"controller line {n}" for n in (6, 7, 8)]
    rig.controller.broken = Unavailable("Docker does not answer")
    assert rig.call(4, "get_logs", {"source": "controller"}) == "Error - Docker does not answer"


def test_logs_of_the_calls_show_the_answer_that_came_too_late(rig: Rig) -> None:
    rig.call(3, "run_command", {"command": ["uptime"]})
    rig.call(4, "ping")
    first, second = rig.call(5, "get_logs", {"source": "calls"})
    assert "id=3 run_command" in first and "exited with code 0" in first and "acknowledged" in first
    assert "id=4 ping" in second and "Pong" in second


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ("x", "params is not a dictionary"),
        ({"source": "kernel"}, "'source' must be 'gateway', 'controller' or 'calls'"),
        ({"source": ["gateway"]}, "'source' must be 'gateway', 'controller' or 'calls'"),
        ({"lines": 0}, "'lines' must be a whole number from 1 to 1000"),
        ({"lines": 1001}, "'lines' must be a whole number from 1 to 1000"),
        ({"lines": "5"}, "'lines' must be a whole number from 1 to 1000"),
    ],
)
def test_get_logs_parameter_errors(rig: Rig, params: Any, text: str) -> None:
    assert rig.call(3, "get_logs", params) == f"Error - Reading logs failed: {text}"


def test_archive_stats(rig: Rig) -> None:
    assert rig.call(3, "archive_stats")["rows"] == 10
    assert rig.call(4, "archive_stats", RANGE)["rows_per_day"] == {"2026-01-01": 10}
    assert rig.archive.asked == [("stats", None, None), ("stats", 1_767_225_600_000, 1_767_312_000_000)]
    assert rig.call(5, "archive_stats", {"start_timestamp_ms": 1}) == (
        "Error - Reading archive statistics failed: missing 'start_timestamp_ms' or 'end_timestamp_ms' in params"
    )


def test_dead_letters(rig: Rig) -> None:
    assert rig.call(1, "dead_letters") == {"dead_letters": [{"id": 3, "reason": "'ts' is missing"}]}
    assert rig.call(2, "dead_letters", {"limit": 5, "before_id": 9})["dead_letters"]
    assert rig.call(3, "dead_letters", {"action": "retry", "ids": [1, 2]}) == "OK - 10 dead letters queued again"
    assert rig.call(4, "dead_letters", {"action": "drop", "ids": "all"}) == "OK - 10 dead letters dropped"
    assert rig.archive.asked == [("letters", 20, None), ("letters", 5, 9), ("retry", (1, 2)), ("drop", None)]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (5, "params is not a dictionary"),
        ({"action": "burn"}, "'action' must be 'list', 'retry' or 'drop'"),
        ({"action": "drop"}, "'ids' must be a list of ids, or 'all'"),
        ({"action": "drop", "ids": []}, "'ids' must be a list of ids, or 'all'"),
        ({"action": "retry", "ids": [True]}, "'ids' must be a list of ids, or 'all'"),
        ({"limit": 101}, "'limit' must be a whole number from 1 to 100"),
        ({"before_id": 0}, "'before_id' must be a whole number from 1 to 4611686018427387904"),
    ],
)
def test_dead_letter_parameter_errors(rig: Rig, params: Any, text: str) -> None:
    assert rig.call(3, "dead_letters", params) == f"Error - Dead letters: {text}"
    assert rig.archive.asked == []


def test_the_log_level_comes_back_by_itself(rig: Rig) -> None:
    assert rig.call(3, "set_log_level", {"level": "debug", "minutes": 10}) == "OK - Log level DEBUG for 10 minutes"
    rig.clock.advance(599)
    tend_rpc()
    assert rig.levels == ["DEBUG"]
    rig.clock.advance(2)
    tend_rpc()
    assert rig.levels == ["DEBUG", "INFO"]


def test_a_log_level_without_minutes_stays(rig: Rig) -> None:
    rig.call(2, "set_log_level", {"level": "DEBUG", "minutes": 1})
    assert rig.call(3, "set_log_level", {"level": "ERROR"}) == "OK - Log level ERROR until the next restart"
    rig.clock.advance(100_000)
    tend_rpc()
    assert rig.levels == ["DEBUG", "ERROR"]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        (None, "params is not a dictionary"),
        ({}, "'level' must be one of DEBUG, INFO, WARNING, ERROR"),
        ({"level": "LOUD"}, "'level' must be one of DEBUG, INFO, WARNING, ERROR"),
        ({"level": "INFO", "minutes": 0}, "'minutes' must be a whole number from 1 to 1440"),
    ],
)
def test_set_log_level_parameter_errors(rig: Rig, params: Any, text: str) -> None:
    assert rig.call(3, "set_log_level", params) == f"Error - Setting the log level failed: {text}"


# --- refusals ----------------------------------------------------------------------------------------------


def test_run_command_is_off_by_default_and_says_how_to_enable_it(tmp_path: Path) -> None:
    with Rig(tmp_path / "gateway.db", run_command="off").serving() as rig:
        answer = rig.call(3, "run_command", {"command": ["ls"]})
    assert answer.startswith("Error - Running command failed: run_command is switched off on this gateway")
    assert "TEG_RPC_RUN_COMMAND" in answer
    assert rig.machine.runs == []


def test_an_allow_list_knows_only_its_names(tmp_path: Path) -> None:
    allowed = parse_command_list(
        """
        [commands.disk_free]
        argv = ["df", "-h", "{path}"]
        timeout_s = 10
        parameters.path = { type = "choice", choices = ["/", "/data"] }
        """
    )
    with Rig(tmp_path / "gateway.db", run_command=allowed).serving() as rig:
        assert rig.call(1, "run_command", {"name": "disk_free", "args": {"path": "/data"}}).startswith("OK - ")
        assert rig.call(2, "run_command", {"command": ["ls"]}) == (
            "Error - Running command failed: missing 'name' in params: only the named commands of the allow-list"
            " can be run"
        )
        assert rig.call(3, "run_command", {"name": "rm", "args": {}}) == (
            "Error - Running command failed: no command 'rm' in the allow-list (there are: disk_free)"
        )
        assert rig.call(4, "run_command", {"name": "disk_free", "args": {"path": "/etc"}}) == (
            "Error - Running command failed: 'path' must be one of /, /data"
        )
    assert rig.machine.runs == [(["df", "-h", "/data"], 10)]


def test_disabled_methods_are_refused(tmp_path: Path) -> None:
    with Rig(tmp_path / "gateway.db", disabled=frozenset({"reboot", "ping"})).serving() as rig:
        assert rig.call(1, "reboot") == "Error - RPC method 'reboot' is disabled on this gateway (TEG_RPC_DISABLED)"
        assert rig.call(2, "ping").startswith("Error - RPC method 'ping' is disabled")
    assert rig.machine.actions == []


def test_power_that_the_host_does_not_offer_is_refused_before_the_answer(rig: Rig) -> None:
    rig.machine.problem = "there is neither 'reboot' nor 'systemctl'"
    assert rig.call(1, "reboot") == ("Error - reboot is not possible here: there is neither 'reboot' nor 'systemctl'")


def test_what_fails_after_its_answer_is_in_the_books(rig: Rig) -> None:
    rig.controller.broken = Refused("no controller version is known yet")
    assert rig.call(1, "restart_controller") == "OK - Restarting Controller"
    (line,) = rig.call(2, "get_logs", {"source": "calls"})
    assert "then: Error - no controller version is known yet" in line


def test_more_than_five_a_second_are_answered_but_not_done(rig: Rig) -> None:
    answers = [rig.call(n, "ping") for n in range(1_000)]
    assert answers.count("Pong") == 20
    assert answers.count("Error - too many calls: more than 5 a second, try again later") == 980
    rig.clock.advance(1)
    assert [rig.call(n, "ping") for n in range(6)].count("Pong") == 5


def test_the_limit_holds_for_what_takes_time_too(rig: Rig) -> None:
    answers = [rig.call(n, "run_command", {"command": ["ls"]}) for n in range(30)]
    assert len(rig.machine.runs) == 20
    assert answers[20:] == ["Error - too many calls: more than 5 a second, try again later"] * 10


def test_a_repeated_answer_does_not_count(rig: Rig) -> None:
    """A flood of re-deliveries must not turn the answer of a call into 'too many calls'."""
    answers = {rig.call(0, "run_command", {"command": ["ls"]}) for _ in range(100)}
    assert len(answers) == 1 and len(rig.machine.runs) == 1


def test_what_could_not_be_read_is_answered_too(rig: Rig) -> None:
    assert rig.refuse(9, "RPC request without a method name") == "Error - RPC request without a method name"
    rig.refuse(10, "x" * 100_000)
    assert rig.session.sizes[-1] <= 60_000


def test_without_a_session_nothing_is_lost_but_the_answer(rig: Rig) -> None:
    rig.session.connected = False
    assert rig.call(3, "ping") is None
    rig.session.connected = True
    assert rig.call(3, "ping") == "Pong"


def test_a_call_that_waited_too_long_for_its_lane_is_not_done(rig: Rig) -> None:
    run_rpc(3, "run_command", {"command": ["ls"]}, rig.clock.now_ms() - 1)
    assert rig.session.sent[-1][1] == ("Error - expired: 'run_command' could not be begun within 10 s, it is not done")
    run_rpc(4, "run_command", {"command": ["ls"]}, rig.clock.now_ms() + 3_600_000)
    assert rig.session.sent[-1][1].startswith("Error - expired")
    assert rig.machine.runs == []


@pytest.mark.parametrize(("late_s", "answers"), [(9, ["Pong"]), (11, [])])
def test_a_call_that_waited_too_long_in_the_queue_is_not_done(tmp_path: Path, late_s: int, answers: list[str]) -> None:
    rig = Rig(tmp_path / "gateway.db")
    with rig.serving():
        huey.immediate = False
        handle_rpc(3, "ping", None)
        data = huey.lanes[Lane.RPC].dequeue()
        assert data is not None
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        huey.execute(huey.deserialize_task(data), timestamp=now + datetime.timedelta(seconds=late_s))
    assert [message for _, message in rig.session.sent] == answers


def test_long_answers_are_cut_below_the_limit(rig: Rig) -> None:
    rig.machine.result = CommandResult(0, "head" + "\x00" * 65_536 + "tail", False, True)
    answer = rig.call(3, "run_command", {"command": ["cat", "/dev/zero"]})
    assert rig.session.sizes[-1] <= 60_000
    assert "characters left out: the answer was too long" in answer
    assert answer.startswith("OK - Command executed") and answer.endswith("tail")


def test_a_lost_connection_before_the_announcement_arrives_is_tried_again(rig: Rig) -> None:
    rig.session.refusals = [NotConnected("gone"), Unavailable("no PUBACK")]
    assert rig.call(3, "reboot") == "OK - Rebooting"
    assert rig.machine.actions == ["reboot"]
