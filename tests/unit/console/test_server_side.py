"""The dashboard and the alarms: every key and call in them is one that the gateway sends, reads or answers.

What the gateway knows is taken from its code: from the functions that make its messages, and from the literals of the
messages that are made in place.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from teg.console.server_side.parts import DASHBOARD, PROFILE, merged_dashboard, merged_profile, same
from teg.domain.files.definitions import CONTENT, FILES
from teg.domain.files.desired import FILE_HASHES
from teg.domain.files.reports import FILES_ERROR, READ
from teg.domain.ota.assignment import SwState, status
from teg.domain.rpc.methods import methods
from teg.domain.server.attributes import SOFTWARE_KEYS
from teg.domain.supervision import report
from teg.domain.supervision.policy import History
from teg.domain.telemetry.reporting import Auxiliary, LogLines
from teg.domain.telemetry.waiting_report import waiting_values
from teg.simulator.thingsboard.alarm_rules import parse_alarms
from tests.support.own_reports import FakeOwn
from tests.support.rpc import FakeClock

ROOT = Path(__file__).resolve().parents[3]
MESSAGES = ("telemetry", "attributes")


def literal_keys(call: str) -> set[str]:
    """Keys of `….call({"key": …})` in the product."""
    found = set()
    for path in [*(ROOT / "teg" / "domain").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == call:
                dicts = [argument for argument in node.args if isinstance(argument, ast.Dict)]
                keys = [key for each in dicts for key in each.keys]
                found |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return found


class Moments:
    def running_since_ms(self) -> int:
        return 1

    def last_heartbeat_ms(self) -> int:
        return 1


def sent_telemetry() -> set[str]:
    moments: Any = Moments()
    return {
        *Auxiliary(moments, moments, moments, moments).values(2),
        *waiting_values({"oldest_pending_ts": None, "dead_letters": 0}, 2),
        *status("v1", "controller", SwState.UPDATED),
        *report.exit_telemetry(History(exit_code=1), []),
        *log_line(),
        *literal_keys("telemetry"),
    }


def log_line() -> Mapping[str, Any]:
    own = FakeOwn()
    lines = LogLines(own, FakeClock(), lambda: None)
    lines.add(1, "INFO", "text")
    lines.store()
    [(_, values)] = own.records
    return values


def sent_attributes() -> set[str]:
    own = report.attributes(report.View(), History(), None)
    return {*own, FILE_HASHES, FILES_ERROR, *literal_keys("attributes")}


def read_attributes() -> set[str]:
    return {*SOFTWARE_KEYS, FILES}


def widgets() -> list[Mapping[str, Any]]:
    return list(DASHBOARD.wanted["configuration"]["widgets"].values())


def data_keys() -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for widget in widgets():
        config = widget["config"]
        sources = [*config["datasources"], *([config["alarmSource"]] if "alarmSource" in config else [])]
        for source in sources:
            for key in source["dataKeys"]:
                yield widget, key


class TestKeys:
    def test_every_time_series_key_is_sent(self) -> None:
        shown = {key["name"] for _, key in data_keys() if key["type"] == "timeseries"}
        assert shown and shown <= sent_telemetry()

    def test_every_attribute_is_sent_or_read(self) -> None:
        shown = {key["name"] for _, key in data_keys() if key["type"] == "attribute"}
        known = sent_attributes() | read_attributes()
        assert shown and {key for key in shown - known if not key.startswith((CONTENT, READ))} == set()

    def test_what_is_edited_is_what_the_gateway_reads(self) -> None:
        edited = {key["name"]: key["settings"] for _, key in data_keys() if "dataKeyType" in key["settings"]}
        assert {FILES, CONTENT + "config"} == set(edited)
        assert {settings["dataKeyType"] for settings in edited.values()} == {"shared"}

    def test_every_key_of_the_alarms_is_sent(self) -> None:
        definitions = parse_alarms(PROFILE.wanted)
        rules = [rule for each in definitions for rule in (*(rule for _, rule in each.create), each.clear) if rule]
        assert {each.key for rule in rules for each in rule.filters} <= sent_telemetry()
        assert all(each.clear for each in definitions), "an alarm that nothing ends is soon not looked at"

    def test_the_failed_update_is_the_word_that_the_gateway_says(self) -> None:
        [rule] = [alarm for alarm in PROFILE.wanted["profileData"]["alarms"] if alarm["alarmType"] == "Failed update"]
        predicate = rule["createRules"]["MAJOR"]["condition"]["condition"][0]["predicate"]
        assert predicate["value"]["defaultValue"] == SwState.FAILED.value

    def test_the_comparison_can_fail(self) -> None:
        assert "target_fw_version" not in sent_telemetry() | sent_attributes() | read_attributes()
        assert {"troubles", "salvage"} <= literal_keys("attributes")
        assert "controller_memory_bytes" in literal_keys("telemetry")


def test_every_call_is_one_that_the_gateway_answers() -> None:
    ports = MagicMock(run_command="off")
    called = {
        widget["config"]["settings"]["onClickState"]["executeRpc"]["method"]
        for widget in widgets()
        if widget["typeFullFqn"] == "system.command_button"
    }
    assert len(called) >= 5 and called <= set(methods(ports))


class TestMerging:
    def test_what_the_operator_set_in_the_profile_stays(self) -> None:
        wanted = PROFILE.wanted
        theirs = {"alarmType": "Too hot", "createRules": {}}
        old = {**wanted["profileData"]["alarms"][0], "createRules": {"MINOR": {}}}
        provisioning = {"type": "ALLOW_CREATE_NEW_DEVICES", "provisionDeviceSecret": "s"}
        data = {**wanted["profileData"], "provisionConfiguration": provisioning, "alarms": [theirs, old]}
        known = {**wanted, "id": {"id": "x"}, "version": 7, "provisionDeviceKey": "k", "profileData": data}
        merged = merged_profile(known, wanted)
        assert (merged["id"], merged["version"], merged["provisionDeviceKey"]) == ({"id": "x"}, 7, "k")
        assert merged["profileData"]["provisionConfiguration"] == provisioning
        assert merged["profileData"]["alarms"] == [*wanted["profileData"]["alarms"], theirs]
        assert not same(known, merged) and same(merged, merged_profile(merged, wanted))

    def test_the_dashboard_keeps_who_may_see_it(self) -> None:
        known = {**DASHBOARD.wanted, "id": {"id": "x"}, "assignedCustomers": [{"title": "c"}], "configuration": {}}
        merged = merged_dashboard(known, DASHBOARD.wanted)
        assert (merged["assignedCustomers"], merged["id"]) == ([{"title": "c"}], {"id": "x"})
        assert merged["configuration"] == DASHBOARD.wanted["configuration"]

    @pytest.mark.parametrize(
        ("known", "body", "equal"),
        [
            ({"a": 1, "new": 2}, {"a": 1}, True),
            ({}, {"a": None}, True),
            ({"a": [1, 2]}, {"a": [1]}, False),
            ({"a": {"b": 1}}, {"a": {"b": 2}}, False),
            ({"a": [{"b": 1, "c": None}]}, {"a": [{"b": 1}]}, True),
            (None, {"a": None}, False),
        ],
    )
    def test_what_the_server_adds_or_leaves_out_is_no_difference(self, known: Any, body: Any, equal: bool) -> None:
        assert same(known, body) is equal
