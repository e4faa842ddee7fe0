"""The stand-in's alarm rules: what they compare, and that a rule it does not run is refused and not forgotten."""

from collections.abc import Mapping
from typing import Any

import pytest

from teg.simulator.thingsboard.alarm_rules import BadAlarmRule, DeviceAlarms, filled_in, parse_alarms


def condition(kind: str = "NUMERIC", operation: str = "GREATER", limit: Any = 10.0, key: str = "age") -> dict[str, Any]:
    predicate = {"type": kind, "operation": operation, "value": {"defaultValue": limit}}
    return {"key": {"type": "TIME_SERIES", "key": key}, "valueType": kind, "predicate": predicate}


def rule(*conditions: Mapping[str, Any], spec: str = "SIMPLE", **fields: Any) -> dict[str, Any]:
    return {"condition": {"condition": list(conditions), "spec": {"type": spec}}, **fields}


def profile(create: Mapping[str, Any], clear: Any = None, name: str = "old") -> dict[str, Any]:
    return {"profileData": {"alarms": [{"id": "1", "alarmType": name, "createRules": create, "clearRule": clear}]}}


def raised(profile: Mapping[str, Any], *records: Mapping[str, Any]) -> list[tuple[str, str]]:
    alarms, definitions = DeviceAlarms(), parse_alarms(profile)
    for record in records:
        alarms.process(definitions, record)
    return [(alarm.severity, alarm.status) for alarm in alarms.alarms]


@pytest.mark.parametrize(
    ("operation", "below", "equal", "above"),
    [
        ("GREATER", 0, 0, 1),
        ("GREATER_OR_EQUAL", 0, 1, 1),
        ("LESS", 1, 0, 0),
        ("LESS_OR_EQUAL", 1, 1, 0),
        ("EQUAL", 0, 1, 0),
        ("NOT_EQUAL", 1, 0, 1),
    ],
)
def test_numbers(operation: str, below: int, equal: int, above: int) -> None:
    wanted = profile({"MAJOR": rule(condition(operation=operation))})
    assert [len(raised(wanted, {"age": value})) for value in (9, 10, 11)] == [below, equal, above]
    assert raised(wanted, {"age": "text"}) == raised(wanted, {"age": True}) == raised(wanted, {"other": 99}) == []


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        ("EQUAL", "FAILED"),
        ("NOT_EQUAL", "FINE"),
        ("STARTS_WITH", "FAILED AGAIN"),
        ("ENDS_WITH", "HAS FAILED"),
        ("CONTAINS", "IT FAILED IT"),
        ("NOT_CONTAINS", "FINE"),
    ],
)
def test_text(operation: str, text: str) -> None:
    wanted = profile({"MAJOR": rule(condition("STRING", operation, "FAILED"))})
    assert raised(wanted, {"age": text}) == [("MAJOR", "ACTIVE_UNACK")]
    other = "FAILED" if operation.startswith("NOT") else "x"
    assert raised(wanted, {"age": other}) == []


def test_the_worst_severity_that_holds_counts_and_only_messages_with_the_key_are_judged() -> None:
    create = {"WARNING": rule(condition(limit=10)), "CRITICAL": rule(condition(limit=100))}
    wanted = profile(create, rule(condition(operation="LESS", limit=5)))
    assert raised(wanted, {"age": 500}) == [("CRITICAL", "ACTIVE_UNACK")]
    assert raised(wanted, {"age": 500}, {"age": 50}) == [("WARNING", "ACTIVE_UNACK")]
    assert raised(wanted, {"age": 50}, {"age": 7}) == [("WARNING", "ACTIVE_UNACK")], "between the two nothing changes"
    assert raised(wanted, {"age": 50}, {"age": 1}, {"x": 1}) == [("WARNING", "CLEARED_UNACK")]
    assert len(raised(wanted, {"age": 50}, {"age": 1}, {"age": 50})) == 2


def test_every_condition_of_a_rule_has_to_hold_the_other_keys_as_they_were_last() -> None:
    wanted = profile({"MAJOR": rule(condition(), condition(key="heat"))})
    assert raised(wanted, {"age": 50}) == []
    assert raised(wanted, {"age": 50}, {"heat": 50}) == [("MAJOR", "ACTIVE_UNACK")]


def test_details_are_filled_in() -> None:
    assert filled_in("since ${age} s: ${why}", {"age": 5}) == "since 5 s: ${why}"
    assert filled_in(None, {"age": 5}) is None


DYNAMIC = condition()
DYNAMIC["predicate"]["value"]["dynamicValue"] = {"sourceType": "CURRENT_DEVICE", "sourceAttribute": "limit"}
OF_ATTRIBUTE = {**condition(), "key": {"type": "ATTRIBUTE", "key": "age"}}


@pytest.mark.parametrize(
    "refused",
    [
        profile({"MAJOR": rule(condition(), spec="DURATION")}),
        profile({"MAJOR": rule(condition(), schedule={"type": "SPECIFIC_TIME"})}),
        profile({"MAJOR": rule(DYNAMIC)}),
        profile({"MAJOR": rule(OF_ATTRIBUTE)}),
        profile({"MAJOR": rule(condition("BOOLEAN", "EQUAL", True))}),
        profile({"MAJOR": rule(condition(operation="ALMOST"))}),
        profile({"MAJOR": rule()}),
        profile({"SEVERE": rule(condition())}),
        profile({}),
        profile({"MAJOR": {}}),
        profile({"MAJOR": rule(condition())}, name=""),
        {"profileData": {"alarms": [*profile({"MAJOR": rule(condition())})["profileData"]["alarms"]] * 2}},
    ],
)
def test_what_it_does_not_run_is_refused(refused: Mapping[str, Any]) -> None:
    with pytest.raises(BadAlarmRule):
        parse_alarms(refused)


def test_a_profile_without_alarms_has_none() -> None:
    assert parse_alarms({}) == parse_alarms({"profileData": {"alarms": None}}) == ()
