"""Device profiles over REST: kept and given back, provisioning as they allow it, and their alarm rules.

Source: ThingsBoard's DeviceProfileController.
"""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from teg.simulator.thingsboard.alarm_rules import AlarmDefinition, BadAlarmRule, parse_alarms
from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.provisioning import Strategy
from teg.simulator.thingsboard.rest.bodies import PROFILE_ID, OrjsonResponse, entity, id_in, json_object, page_of
from teg.simulator.thingsboard.rest.collection import Collection, Entity
from teg.simulator.thingsboard.rest.errors import BAD_REQUEST, ApiError, PlainError

_STRATEGIES: Mapping[str, Strategy] = {
    "ALLOW_CREATE_NEW_DEVICES": "create",
    "CHECK_PRE_PROVISIONED_DEVICES": "check",
}
_DEFAULT = {
    "name": "default",
    "type": "DEFAULT",
    "transportType": "DEFAULT",
    "provisionType": "DISABLED",
    "provisionDeviceKey": None,
    "profileData": {
        "configuration": {"type": "DEFAULT"},
        "transportConfiguration": {"type": "DEFAULT"},
        "provisionConfiguration": {"type": "DISABLED", "provisionDeviceSecret": None},
        "alarms": None,
    },
    "default": True,
}
_INFO = ("id", "name", "image", "defaultDashboardId", "type", "transportType", "tenantId")


class Profiles:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._profiles = Collection("DEVICE_PROFILE", "Device profile", "name")
        self._profiles.keep(dict(_DEFAULT), PROFILE_ID)

    def routes(self) -> list[Route]:
        return [
            Route("/api/deviceProfile", self.save, methods=["POST"]),
            Route("/api/deviceProfile/{profile_id}", self.get, methods=["GET"]),
            Route("/api/deviceProfile/{profile_id}", self.delete, methods=["DELETE"]),
            Route("/api/deviceProfiles", self.find, methods=["GET"]),
            Route("/api/deviceProfileInfos", self.find_infos, methods=["GET"]),
            Route("/api/deviceProfileInfo/default", self.default_info, methods=["GET"]),
        ]

    def fields_of_device(self, identity: str) -> Entity:
        """What a device of this profile carries of it."""
        return device_fields(self._profiles.find(identity))

    async def save(self, request: Request) -> Response:
        body = await json_object(request)
        if self._core.faults.forget_contents:
            body["profileData"] = {**(body.get("profileData") or {}), "alarms": []}
        if body.get("softwareId") or body.get("firmwareId"):
            raise PlainError(501, "The stand-in assigns packages to devices only")
        identity = id_in(body, "id")
        before = {} if identity is None else self._profiles.find(identity)
        rules = _alarms(body)
        profile = self._profiles.save({"default": False, **body})
        self._core.alarm_rules[profile["id"]["id"]] = rules
        if profile["default"]:
            self._core.alarm_rules[None] = rules
        self._forbid(before)
        self._allow(profile)
        return OrjsonResponse(profile)

    async def get(self, request: Request) -> Response:
        return OrjsonResponse(self._profiles.find(request.path_params["profile_id"]))

    async def delete(self, request: Request) -> Response:
        profile = self._profiles.find(request.path_params["profile_id"])
        if profile["default"]:
            raise ApiError(400, "Deletion of Default Device Profile is prohibited!", BAD_REQUEST)
        if any(device.details.get("deviceProfileId") == profile["id"] for device in self._core.devices.values()):
            said = "The device profile referenced by the devices cannot be deleted!"
            raise ApiError(400, said, BAD_REQUEST)
        self._forbid(profile)
        self._profiles.delete(profile["id"]["id"])
        del self._core.alarm_rules[profile["id"]["id"]]
        return Response()

    async def find(self, request: Request) -> Response:
        return page_of(self._profiles.search(request.query_params.get("textSearch", "")), request)

    async def find_infos(self, request: Request) -> Response:
        found = self._profiles.search(request.query_params.get("textSearch", ""))
        return page_of([_info(profile) for profile in found], request)

    async def default_info(self, _request: Request) -> Response:
        return OrjsonResponse(_info(self._profiles.find(PROFILE_ID)))

    def _forbid(self, profile: Entity) -> None:
        if key := profile.get("provisionDeviceKey"):
            self._core.provisioning.disable(key)

    def _allow(self, profile: Entity) -> None:
        strategy = _STRATEGIES.get(profile.get("provisionType", "DISABLED"))
        key, secret = profile.get("provisionDeviceKey"), _secret(profile)
        if strategy is not None and key and secret:
            self._core.provisioning.allow(key, secret, strategy, device_fields(profile))


def device_fields(profile: Entity) -> Entity:
    return {"type": profile["name"], "deviceProfileId": entity("DEVICE_PROFILE", profile["id"]["id"])}


def _alarms(profile: Entity) -> tuple[AlarmDefinition, ...]:
    try:
        return parse_alarms(profile)
    except BadAlarmRule as error:
        raise ApiError(400, str(error), BAD_REQUEST) from error


def _secret(profile: Entity) -> Any:
    data = profile.get("profileData") or {}
    return (data.get("provisionConfiguration") or {}).get("provisionDeviceSecret")


def _info(profile: Entity) -> Entity:
    return {field: profile.get(field) for field in _INFO}
