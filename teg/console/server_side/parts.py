"""The parts that a ThingsBoard server gets from us, and how each is merged into what it has already.

The files are exports as ThingsBoard 4 writes and imports them (`deploy/thingsboard/`); the web page imports them too.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from teg.adapters.thingsboard_rest import ThingsBoardRest

Entity = Mapping[str, Any]

_HERE = Path(__file__).resolve()
#: In an installation beside this module, in a checkout where people look for them.
PLACES = (_HERE.parent, _HERE.parents[3] / "deploy" / "thingsboard")


@dataclass(frozen=True, slots=True)
class Part:
    """`listing` finds those whose name contains a text, `path` reads and saves one by its id."""

    label: str
    file: str
    name_field: str
    listing: str
    path: str
    merged: Callable[[Entity, Entity], Entity]

    @property
    def wanted(self) -> Entity:
        found: Entity = json.loads(place_of(self.file).read_text())
        return found


@dataclass(frozen=True, slots=True)
class Change:
    part: Part
    kind: Literal["new", "different", "same"]
    #: What is to be saved; when it is not new, with id and version of what the server has.
    body: Entity


def place_of(file: str) -> Path:
    return next(place / file for place in PLACES if (place / file).exists())


def merged_profile(known: Entity, wanted: Entity) -> Entity:
    """Ours: description and alarms. What else the operator has set stays, other alarms too."""
    ours = wanted["profileData"]["alarms"]
    types = {alarm["alarmType"] for alarm in ours}
    theirs = known.get("profileData") or {}
    others = [alarm for alarm in theirs.get("alarms") or () if alarm["alarmType"] not in types]
    data = {**wanted["profileData"], **theirs, "alarms": [*ours, *others]}
    return {**wanted, **known, "description": wanted["description"], "profileData": data}


def merged_dashboard(known: Entity, wanted: Entity) -> Entity:
    """Its contents are ours; id, customers and place in the app are the operator's."""
    return {**wanted, **known, "configuration": wanted["configuration"]}


PROFILE = Part(
    "device profile 'TEG gateway'",
    "device-profile.json",
    "name",
    "/api/deviceProfiles",
    "/api/deviceProfile",
    merged_profile,
)
DASHBOARD = Part(
    "dashboard 'TEG gateways'",
    "dashboard.json",
    "title",
    "/api/tenant/dashboards",
    "/api/dashboard",
    merged_dashboard,
)
PARTS = (PROFILE, DASHBOARD)


def plan_parts(rest: ThingsBoardRest) -> Sequence[Change]:
    return [plan(rest, part) for part in PARTS]


def install_parts(rest: ThingsBoardRest) -> Sequence[Change]:
    """
    Raises:
        Refused: the server refuses one, such as because somebody else has changed it meanwhile.
        Unavailable: no answer.
    """
    changes = plan_parts(rest)
    for change in changes:
        if change.kind != "same":
            rest.post(change.part.path, change.body)
    return changes


def plan(rest: ThingsBoardRest, part: Part) -> Change:
    known = find(rest, part)
    if known is None:
        return Change(part, "new", part.wanted)
    body = part.merged(known, part.wanted)
    return Change(part, "same" if same(known, body) else "different", body)


def same(known: Any, body: Any) -> bool:
    """Whether the server shows what it was sent: it may leave out what is null, and add what we do not know."""
    if isinstance(body, Mapping) and isinstance(known, Mapping):
        return all(same(known.get(key), value) for key, value in body.items())
    if isinstance(body, list) and isinstance(known, list):
        return len(body) == len(known) and all(map(same, known, body))
    return bool(known == body)


def find(rest: ThingsBoardRest, part: Part) -> Entity | None:
    """The whole entity of exactly our name."""
    name = part.wanted[part.name_field]
    for each in rest.pages(part.listing, textSearch=name):
        if each[part.name_field] == name:
            found: Entity = rest.get(f"{part.path}/{each['id']['id']}")
            return found
    return None


def profile_id(rest: ThingsBoardRest) -> str | None:
    known = find(rest, PROFILE)
    return None if known is None else str(known["id"]["id"])
