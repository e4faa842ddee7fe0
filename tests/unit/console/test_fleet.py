"""What the table says of a gateway, by what the server knows of it."""

from typing import Any

import pytest

from teg.console.fleet import SILENT_CONTROLLER_S, judged, table

NOW_S = 1_790_000_000.0
WELL: dict[str, Any] = {
    "active": True,
    "lastActivityTime": int(NOW_S * 1000) - 5000,
    "current_sw_title": "controller",
    "current_sw_version": "1.2",
    "sw_state": "UPDATED",
    "troubles": [],
}


def newest(**values: Any) -> dict[str, Any]:
    return {key: {"ts": int(NOW_S * 1000) - 60_000, "value": value} for key, value in values.items()}


def test_nothing_is_wrong_with_one_that_is_well() -> None:
    gateway = judged("pi-1", WELL, newest(backlog_age_s=3, dead_letters=0), NOW_S)
    assert gateway.wrong == ()
    assert (gateway.software, gateway.update, gateway.heard_s) == ("controller 1.2", "UPDATED", 5.0)


@pytest.mark.parametrize(
    ("attributes", "telemetry", "said"),
    [
        ({"active": False}, {}, "not connected"),
        ({"sw_state": "FAILED", "sw_error": "no heartbeat"}, {}, "update failed: no heartbeat"),
        ({"sw_state": "FAILED"}, {}, "update failed: no reason given"),
        ({"troubles": ["the disk is full"]}, {}, "trouble: the disk is full"),
        ({}, {"backlog_age_s": 7200}, "backlog of 2 h"),
        ({}, {"dead_letters": 3}, "3 dead letters"),
        (
            {},
            {"ms_since_last_controller_health_check": SILENT_CONTROLLER_S * 1000},
            "no heartbeat of the controller for 2 h",
        ),
    ],
)
def test_what_is_wrong_is_said(attributes: dict[str, Any], telemetry: dict[str, Any], said: str) -> None:
    assert judged("pi-1", WELL | attributes, newest(**telemetry), NOW_S).wrong == (said,)


def test_a_silent_controller_of_a_gateway_that_is_away_goes_on_being_silent() -> None:
    told = {"ms_since_last_controller_health_check": {"ts": int((NOW_S - 86_400) * 1000), "value": 1000}}
    assert "no heartbeat of the controller for 24 h" in judged("pi-1", WELL, told, NOW_S).wrong


@pytest.mark.parametrize("value", [None, "nonsense", True, {}])
def test_values_of_another_kind_are_not_known(value: Any) -> None:
    gateway = judged("pi-1", {"active": value, "lastActivityTime": value}, newest(backlog_age_s=value), NOW_S)
    assert gateway.backlog_age_s is None
    assert gateway.heard_s is None


def test_the_table_obeys_no_name() -> None:
    lines = list(table([judged("pi\x1b[2J\n", WELL, {}, NOW_S)], []))
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)


def test_the_last_line_counts_all_gateways() -> None:
    found = [judged("a", WELL, {}, NOW_S), judged("b", WELL | {"active": False}, {}, NOW_S)]
    *_, last = table([], found)
    assert last == "2 gateways, 1 not connected, 1 with something wrong"
