"""The exports in deploy/thingsboard/ have the form that ThingsBoard 4 writes and imports, and hang together.

Form: `ui-ngx/src/app/shared/models/{dashboard,widget,alias,device}.models.ts` of ThingsBoard's source.
"""

import json
import shutil
import subprocess
from typing import Any

import jsonschema
import pytest

from teg.console.server_side.parts import DASHBOARD, PROFILE

KEY: dict[str, Any] = {
    "type": "object",
    "required": ["name", "type", "label", "settings"],
    "properties": {"type": {"enum": ["timeseries", "attribute", "alarm", "entityField"]}},
}
SOURCE = {
    "type": "object",
    "required": ["type", "entityAliasId", "dataKeys"],
    "properties": {"type": {"const": "entity"}, "dataKeys": {"type": "array", "minItems": 1, "items": KEY}},
}
WIDGET = {
    "type": "object",
    "required": ["typeFullFqn", "type", "sizeX", "sizeY", "row", "col", "id", "config"],
    "properties": {
        "typeFullFqn": {"pattern": r"^system\.[a-z_]+(\.[a-z_]+)?$"},
        "type": {"enum": ["latest", "timeseries", "rpc", "alarm", "static"]},
        "config": {
            "type": "object",
            "required": ["title", "datasources", "settings", "actions"],
            "properties": {"datasources": {"type": "array", "items": SOURCE}, "alarmSource": SOURCE},
        },
    },
}
DASHBOARD_SCHEMA = {
    "type": "object",
    "required": ["title", "configuration"],
    "properties": {
        "configuration": {
            "type": "object",
            "required": ["widgets", "states", "entityAliases", "filters", "timewindow", "settings"],
            "properties": {"widgets": {"type": "object", "additionalProperties": WIDGET}},
        }
    },
}
PREDICATE = {
    "type": "object",
    "required": ["type", "operation", "value"],
    "properties": {"value": {"type": "object", "required": ["defaultValue"]}},
}
RULE = {
    "type": "object",
    "required": ["condition"],
    "properties": {
        "condition": {
            "type": "object",
            "required": ["condition", "spec"],
            "properties": {
                "condition": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["key", "valueType", "predicate"],
                        "properties": {"predicate": PREDICATE},
                    },
                },
                "spec": {"type": "object", "required": ["type"]},
            },
        }
    },
}
SEVERITIES = ["CRITICAL", "MAJOR", "MINOR", "WARNING", "INDETERMINATE"]
PROFILE_SCHEMA = {
    "type": "object",
    "required": ["name", "type", "transportType", "provisionType", "profileData"],
    "properties": {
        "profileData": {
            "type": "object",
            "required": ["configuration", "transportConfiguration", "provisionConfiguration", "alarms"],
            "properties": {
                "alarms": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["id", "alarmType", "createRules", "clearRule"],
                        "properties": {
                            "createRules": {
                                "type": "object",
                                "minProperties": 1,
                                "propertyNames": {"enum": SEVERITIES},
                                "additionalProperties": RULE,
                            },
                            "clearRule": RULE,
                        },
                    },
                }
            },
        }
    },
}


def test_the_dashboard() -> None:
    jsonschema.validate(DASHBOARD.wanted, DASHBOARD_SCHEMA)


def test_the_profile() -> None:
    jsonschema.validate(PROFILE.wanted, PROFILE_SCHEMA)


@pytest.mark.parametrize("field", ["config", "typeFullFqn"])
def test_the_schema_can_fail(field: str) -> None:
    broken = json.loads(json.dumps(DASHBOARD.wanted))
    del next(iter(broken["configuration"]["widgets"].values()))[field]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, DASHBOARD_SCHEMA)


def test_every_widget_stands_in_one_state_where_nothing_overlaps() -> None:
    configuration = DASHBOARD.wanted["configuration"]
    placed: list[str] = []
    for state in configuration["states"].values():
        cells: set[tuple[int, int]] = set()
        for identity, place in state["layouts"]["main"]["widgets"].items():
            placed.append(identity)
            columns = range(place["col"], place["col"] + place["sizeX"])
            rows = range(place["row"], place["row"] + place["sizeY"])
            own = {(column, row) for column in columns for row in rows}
            assert not own & cells, configuration["widgets"][identity]["config"]["title"]
            assert max(columns) < state["layouts"]["main"]["gridSettings"]["columns"]
            cells |= own
    assert sorted(placed) == sorted(configuration["widgets"])


def test_every_alias_and_state_that_is_named_exists() -> None:
    configuration = DASHBOARD.wanted["configuration"]
    text = json.dumps(configuration)
    named = {part.split('"')[0] for part in text.split('"entityAliasId": "')[1:]}
    assert named == set(configuration["entityAliases"])
    targets = {part.split('"')[0] for part in text.split('"targetDashboardStateId": "')[1:]}
    assert targets and targets <= set(configuration["states"])


def test_the_dashboard_looks_for_devices_of_our_profile() -> None:
    filters = [alias["filter"] for alias in DASHBOARD.wanted["configuration"]["entityAliases"].values()]
    assert [each["deviceTypes"] for each in filters if each["type"] == "deviceType"] == [[PROFILE.wanted["name"]]]


TABLES = ("system.cards.entities_table", "system.cards.timeseries_table")


def test_no_text_of_a_device_becomes_a_part_of_the_page() -> None:
    """ThingsBoard's cards and tables show a value as HTML (`bypassSecurityTrustHtml`), so each cell escapes its own."""
    for widget in DASHBOARD.wanted["configuration"]["widgets"].values():
        kind, keys = (
            widget["typeFullFqn"],
            [key for each in widget["config"]["datasources"] for key in each["dataKeys"]],
        )
        assert "card" not in kind.split(".")[-1], "these cannot escape"
        for key in keys if kind in TABLES else ():
            settings = key["settings"]
            assert settings["useCellContentFunction"] is True, key["name"]
            assert settings["cellContentFunction"].endswith("return cell.innerHTML;"), key["name"]
            assert "cell.textContent = " in settings["cellContentFunction"], key["name"]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_what_a_cell_shows_is_escaped() -> None:
    """The functions of the cells, run by a JavaScript engine with a document that escapes as a browser does."""
    page = (
        "const document = {createElement: () => ({set textContent(text) {this.innerHTML ="
        " text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;')}, innerHTML: ''})};"
    )
    widgets = DASHBOARD.wanted["configuration"]["widgets"].values()
    sources = [source for widget in widgets for source in widget["config"]["datasources"]]
    settings = [key["settings"] for source in sources for key in source["dataKeys"]]
    for body in {each["cellContentFunction"] for each in settings if "cellContentFunction" in each}:
        run = f"{page} const cell = new Function('value', 'document', {json.dumps(body)});"
        run += "const values = ['<img src=x onerror=1>', {a: '<b>'}, null, 0, false];"
        run += "console.log(JSON.stringify(values.map(value => cell(value, document))));"
        done = subprocess.run(["node", "-e", run], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == ["&lt;img src=x onerror=1&gt;", '{"a":"&lt;b&gt;"}', "", "0", "false"]
