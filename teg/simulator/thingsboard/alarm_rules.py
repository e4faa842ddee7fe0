"""The alarm rules of device profiles, as far as one value of one message decides (condition type SIMPLE).

Source: ThingsBoard's TbDeviceProfileNode, AlarmState and AlarmRuleState. Duration, repetition, schedules and dynamic
thresholds are refused: nothing of ours needs them, and a rule that is silently not run would be a lie.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from teg.simulator.thingsboard.typing_rules import SKIPPED, stored

#: In the order in which the rules of one alarm are tried.
SEVERITIES = ("CRITICAL", "MAJOR", "MINOR", "WARNING", "INDETERMINATE")

_NUMERIC: Mapping[str, Callable[[float, float], bool]] = {
    "EQUAL": lambda value, limit: value == limit,
    "NOT_EQUAL": lambda value, limit: value != limit,
    "GREATER": lambda value, limit: value > limit,
    "LESS": lambda value, limit: value < limit,
    "GREATER_OR_EQUAL": lambda value, limit: value >= limit,
    "LESS_OR_EQUAL": lambda value, limit: value <= limit,
}
_STRING: Mapping[str, Callable[[str, str], bool]] = {
    "EQUAL": lambda value, limit: value == limit,
    "NOT_EQUAL": lambda value, limit: value != limit,
    "STARTS_WITH": str.startswith,
    "ENDS_WITH": str.endswith,
    "CONTAINS": lambda value, limit: limit in value,
    "NOT_CONTAINS": lambda value, limit: limit not in value,
}


class BadAlarmRule(Exception):  # noqa: N818
    """The server would refuse the profile, or the stand-in does not run such a rule; the text says which."""


@dataclass(frozen=True, slots=True)
class Filter:
    key: str
    test: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """Holds when every filter does; `details` is a text with `${key}` in it."""

    filters: tuple[Filter, ...]
    details: str | None

    def holds(self, changed: Mapping[str, Any], latest: Mapping[str, Any]) -> bool:
        """Tried for messages that carry one of its keys; the others are taken as they were last."""
        if not any(each.key in changed for each in self.filters):
            return False
        return all(each.key in latest and each.test(latest[each.key]) for each in self.filters)


@dataclass(frozen=True, slots=True)
class AlarmDefinition:
    type: str
    create: tuple[tuple[str, Rule], ...]
    clear: Rule | None


@dataclass(slots=True)
class Alarm:
    """One alarm of one device, from its creation to its clearing; an acknowledged one stays acknowledged."""

    type: str
    severity: str
    details: str | None
    start_ms: int
    end_ms: int
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    clear_ms: int = 0

    @property
    def status(self) -> str:
        return "CLEARED_UNACK" if self.clear_ms else "ACTIVE_UNACK"


def parse_alarms(profile: Mapping[str, Any]) -> tuple[AlarmDefinition, ...]:
    """
    Raises:
        BadAlarmRule: see there.
    """
    alarms = ((profile.get("profileData") or {}).get("alarms")) or ()
    try:
        parsed = tuple(_parse_alarm(alarm) for alarm in alarms)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadAlarmRule(f"an alarm rule without or with a wrong {error}") from error
    types = [alarm.type for alarm in parsed]
    if len(set(types)) != len(types):
        raise BadAlarmRule("Can't create device profile with the same alarm rule types!")
    return parsed


def _parse_alarm(alarm: Mapping[str, Any]) -> AlarmDefinition:
    create = alarm["createRules"]
    if not alarm["alarmType"] or not create or set(create) - set(SEVERITIES):
        raise BadAlarmRule(f"alarm {alarm['alarmType']!r} has no create rule of a known severity")
    rules = tuple((severity, _parse_rule(create[severity])) for severity in SEVERITIES if severity in create)
    return AlarmDefinition(alarm["alarmType"], rules, _parse_rule(alarm["clearRule"]) if alarm["clearRule"] else None)


def _parse_rule(rule: Mapping[str, Any]) -> Rule:
    condition = rule["condition"]
    if condition["spec"]["type"] != "SIMPLE" or rule.get("schedule"):
        raise BadAlarmRule(f"the stand-in runs no rules of type {condition['spec']['type']} or with a schedule")
    if not condition["condition"]:
        raise BadAlarmRule("an alarm rule without a condition")
    return Rule(tuple(_parse_filter(each) for each in condition["condition"]), rule.get("alarmDetails"))


def _parse_filter(each: Mapping[str, Any]) -> Filter:
    predicate, kind = each["predicate"], each["valueType"]
    if each["key"]["type"] != "TIME_SERIES" or predicate["type"] != kind or predicate["value"].get("dynamicValue"):
        raise BadAlarmRule("the stand-in compares time series with fixed values only")
    operation, limit = predicate["operation"], predicate["value"]["defaultValue"]
    if kind == "NUMERIC":
        compare = _NUMERIC[operation]
        return Filter(each["key"]["key"], lambda value: _is_number(value) and compare(value, float(limit)))
    if kind == "STRING":
        matches = _STRING[operation]
        return Filter(each["key"]["key"], lambda value: isinstance(value, str) and matches(value, str(limit)))
    raise BadAlarmRule(f"the stand-in does not compare values of type {kind}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class DeviceAlarms:
    """The alarms of one device, newest last. One of each type at most is active."""

    def __init__(self) -> None:
        self.alarms: list[Alarm] = []
        self._latest: dict[str, Any] = {}

    def process(self, definitions: tuple[AlarmDefinition, ...], published: Mapping[str, Any]) -> None:
        """One record of the device, as `payloads.records_in` gives it."""
        typed_values = {key: stored(raw) for key, raw in published.items()}
        values = {key: value for key, value in typed_values.items() if value is not SKIPPED}
        self._latest |= values
        for definition in definitions:
            self._apply(definition, values)

    def _apply(self, definition: AlarmDefinition, values: Mapping[str, Any]) -> None:
        active = next((each for each in self.alarms if each.type == definition.type and not each.clear_ms), None)
        now_ms = time.time_ns() // 1_000_000
        for severity, rule in definition.create:
            if rule.holds(values, self._latest):
                details = filled_in(rule.details, self._latest)
                if active is None:
                    self.alarms.append(Alarm(definition.type, severity, details, now_ms, now_ms))
                else:
                    active.severity, active.details, active.end_ms = severity, details, now_ms
                return
        if active is not None and definition.clear is not None and definition.clear.holds(values, self._latest):
            active.clear_ms = now_ms


def filled_in(details: str | None, values: Mapping[str, Any]) -> str | None:
    if details is None:
        return None
    for key, value in values.items():
        details = details.replace(f"${{{key}}}", str(value))
    return details
