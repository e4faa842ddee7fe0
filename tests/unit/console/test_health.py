"""Which account of a gateway means which trouble; the same rules for `teg status` and the health of a fleet."""

from typing import Any

import pytest

from teg.console.health import CONTROLLER_REMEDY, is_full, troubles
from teg.console.status import status_lines
from teg.domain.supervision.report import Condition

NOW_MS = 1_767_225_600_000
LINK = {"connected": True, "since_ms": NOW_MS - 60_000, "last_end": "", "next_try_ms": None, "shared_token": False}


def report(**parts: Any) -> dict[str, Any]:
    return {
        "now_ms": NOW_MS,
        "connection": LINK,
        "archive": {"pending": 0},
        "disk": {"total_bytes": 32_000_000_000, "free_bytes": 16_000_000_000},
        "controller": {"controller_state": "running", "controller_running_since_ms": NOW_MS - 60_000},
        "heartbeat": {"last_ms": NOW_MS - 5_000},
        **parts,
    }


def only(**parts: Any) -> str:
    [trouble] = troubles(report(**parts))
    return str(trouble)


def test_all_is_well() -> None:
    assert troubles(report()) == []


def test_a_gateway_that_has_just_started_to_connect_has_no_trouble_yet() -> None:
    assert troubles(report(connection={**LINK, "connected": False, "since_ms": NOW_MS - 5_000})) == []


def test_no_connection_is_told_with_its_reason() -> None:
    gone = {**LINK, "connected": False}
    assert "no route" in only(connection={**gone, "last_end": "no route"})
    assert "no connection for 90 s" in only(connection={**gone, "since_ms": NOW_MS - 90_000})


def test_a_shared_token_is_told_also_between_two_kicks() -> None:
    assert "another token" in only(connection={**LINK, "shared_token": True, "last_end": "closed 3 times"})


@pytest.mark.parametrize("state", [each for each in Condition if each not in (Condition.RUNNING, Condition.UNKNOWN)])
def test_every_state_of_a_controller_that_does_not_run_has_a_remedy(state: Condition) -> None:
    assert CONTROLLER_REMEDY[state.value] in only(controller={"controller_state": state.value})


def test_a_controller_that_says_nothing() -> None:
    quiet = {"last_ms": NOW_MS - 3_600_000}
    since = NOW_MS - 7_200_000
    running = {"controller_state": "running", "controller_running_since_ms": since}
    assert "no heartbeat for 60 min" in only(controller=running, heartbeat=quiet)
    assert troubles(report(heartbeat=quiet)) == [], "it has only just been started"


@pytest.mark.parametrize("part", ["disk", "archive", "controller", "heartbeat"])
def test_what_cannot_be_read_is_trouble(part: str) -> None:
    assert "input/output error" in only(**{part: {"error": "input/output error"}})


@pytest.mark.parametrize(
    ("total", "free", "full"),
    [(32e9, 199e6, True), (32e9, 201e6, False), (1e9, 49e6, True), (1e9, 51e6, False)],
)
def test_full(total: int, free: int, full: bool) -> None:
    assert is_full(total, free) is full


def test_the_lines_cannot_be_forged_from_outside() -> None:
    """The server ends connections and the controller ends with what words they like."""
    evil = "x\n✓ all is well\x1b[2J"
    shown = status_lines(
        {
            **report(
                connection={**LINK, "connected": False, "last_end": evil},
                controller={
                    "controller_state": "waiting",
                    "controller_version": evil,
                    "controller_last_exit_ms": NOW_MS,
                    "controller_last_exit_reason": evil,
                },
                archive={"error": evil},
            ),
            "running": "yes",
            "data_path": "/data",
            "last_trouble": [evil],
            "trouble": [
                str(each) for each in troubles(report(connection={**LINK, "connected": False, "last_end": evil}))
            ],
        }
    )
    assert not [line for line in shown if "\n" in line or "\x1b" in line]
