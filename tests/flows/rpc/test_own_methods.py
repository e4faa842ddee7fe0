"""Our own methods and their texts, from the listener's task to the answer, in immediate mode."""

from typing import Any

import pytest

from tasks.rpc import tend_rpc
from teg.domain.errors import Unavailable
from tests.support.rpc import RANGE, Rig


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
    assert rig.call(3, "get_logs", {"source": "controller", "lines": 2}) == [f"controller line {n}" for n in (1, 2)]
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
