"""Devices over REST: create, change, find, delete, and their credentials.

Source: ThingsBoard's DeviceController.
"""

import json
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.credentials import Credentials, random_text
from teg.simulator.thingsboard.device_state import DeviceState
from teg.simulator.thingsboard.rest.bodies import (
    NO_CUSTOMER_ID,
    PROFILE_ID,
    TENANT_ID,
    OrjsonResponse,
    entity,
    id_in,
    json_object,
    page_of,
)
from teg.simulator.thingsboard.rest.errors import BAD_REQUEST, NOT_FOUND, ApiError, checked_id
from teg.simulator.thingsboard.rest.packages import Packages
from teg.simulator.thingsboard.rest.profiles import Profiles

#: Kind of a package -> the field of a device that names the one assigned to it.
_PACKAGE_FIELDS = {"sw": "softwareId", "fw": "firmwareId"}


class Devices:
    def __init__(self, core: Core, packages: Packages, profiles: Profiles) -> None:
        self._core = core
        self._packages = packages
        self._profiles = profiles

    def routes(self) -> list[Route]:
        return [
            Route("/api/device", self.save, methods=["POST"]),
            Route("/api/device/credentials", self.save_credentials, methods=["POST"]),
            Route("/api/device/{device_id}", self.get, methods=["GET"]),
            Route("/api/device/{device_id}", self.delete, methods=["DELETE"]),
            Route("/api/device/{device_id}/credentials", self.credentials, methods=["GET"]),
            Route("/api/tenant/devices", self.find, methods=["GET"]),
            Route("/api/tenant/device", self.find, methods=["GET"]),  # as 4.4 spells it
        ]

    async def save(self, request: Request) -> Response:
        """Create, with the token of the query or a random one; with an id in the body: change."""
        body = await json_object(request)
        name = body.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ApiError(400, "Device name should be specified!", BAD_REQUEST)
        details = self._details(body)
        if (identity := id_in(body, "id")) is not None:
            device = self._device(identity)
            self._rename(device, name)
        else:
            device = self._create(name, request.query_params.get("accessToken"))
        device.details = details
        self._assign(device, body)
        return OrjsonResponse(device_json(device))

    async def get(self, request: Request) -> Response:
        return OrjsonResponse(device_json(self._device(request.path_params["device_id"])))

    async def delete(self, request: Request) -> Response:
        self._core.delete_device(self._device(request.path_params["device_id"]).name)
        return Response()

    async def find(self, request: Request) -> Response:
        """One by `deviceName`, or a page of all."""
        name = request.query_params.get("deviceName")
        if name is None:
            wanted = request.query_params.get("textSearch", "").casefold()
            found = [device for device in self._core.devices.values() if wanted in device.name.casefold()]
            return page_of([device_json(device) for device in found], request)
        if name not in self._core.devices:
            raise ApiError(404, "Requested item wasn't found!", NOT_FOUND)
        return OrjsonResponse(device_json(self._core.devices[name]))

    async def credentials(self, request: Request) -> Response:
        return OrjsonResponse(credentials_json(self._device(request.path_params["device_id"])))

    async def save_credentials(self, request: Request) -> Response:
        """New ones close the session of the device."""
        body = await json_object(request)
        device = self._device(id_in(body, "deviceId") or "")
        changed = _parsed_credentials(body)
        self._refuse_if_taken(changed, device)
        device.credentials = changed
        device.end_session("credentials changed", 0x98)
        return OrjsonResponse(credentials_json(device))

    def _device(self, identity: str) -> DeviceState:
        wanted = checked_id(identity)
        device = self._core.device_by_id(wanted)
        if device is None:
            raise ApiError(404, f"Device with id [{wanted}] is not found", NOT_FOUND)
        return device

    def _details(self, body: dict[str, Any]) -> dict[str, Any]:
        """Its type is the name of its profile."""
        profile = self._profiles.fields_of_device(id_in(body, "deviceProfileId") or PROFILE_ID)
        return {field: body[field] for field in ("label", "additionalInfo", "customerId") if field in body} | profile

    def _create(self, name: str, token: str | None) -> DeviceState:
        if name in self._core.devices:
            raise ApiError(400, "Device with such name already exists!", BAD_REQUEST)
        credentials = Credentials(token=token or random_text())
        self._refuse_if_taken(credentials, None)
        return self._core.add_device(name, credentials)

    def _rename(self, device: DeviceState, name: str) -> None:
        if name != device.name and name in self._core.devices:
            raise ApiError(400, "Device with such name already exists!", BAD_REQUEST)
        self._core.rename_device(device, name)

    def _refuse_if_taken(self, credentials: Credentials, owner: DeviceState | None) -> None:
        others = (device for device in self._core.devices.values() if device is not owner)
        if any(device.credentials == credentials for device in others):
            raise ApiError(400, "Device credentials are already assigned to another device!", BAD_REQUEST)

    def _assign(self, device: DeviceState, body: dict[str, Any]) -> None:
        limits = self._core.limits
        for kind, field in _PACKAGE_FIELDS.items():
            wanted = id_in(body, field)
            if wanted is None:
                device.unassign(kind)
            else:
                package = self._packages.package(wanted, kind)
                fails = self._core.faults.fail_url_packages
                behaviour = replace(limits.behaviour, url_package_needs_algorithm=True) if fails else limits.behaviour
                device.assign(kind, package, limits.push_order, behaviour)
                device.package_ids[kind] = wanted


def device_json(device: DeviceState) -> dict[str, Any]:
    assigned = {field: device.package_ids.get(kind) for kind, field in _PACKAGE_FIELDS.items()}
    return {
        "id": entity("DEVICE", device.id),
        "createdTime": device.created_ms,
        "tenantId": entity("TENANT", TENANT_ID),
        "customerId": entity("CUSTOMER", NO_CUSTOMER_ID),
        "name": device.name,
        "type": "default",
        "label": None,
        "deviceProfileId": entity("DEVICE_PROFILE", PROFILE_ID),
        "additionalInfo": None,
        **device.details,
        **{field: identity and entity("OTA_PACKAGE", identity) for field, identity in assigned.items()},
    }


def credentials_json(device: DeviceState) -> dict[str, Any]:
    known = device.credentials
    kind, identity, value = "ACCESS_TOKEN", known.token if known else None, None
    if known is not None and known.token is None:
        fields = {"clientId": known.client_id, "userName": known.user_name, "password": known.password}
        kind, identity, value = "MQTT_BASIC", known.user_name or known.client_id, json.dumps(fields)
    return {
        "deviceId": entity("DEVICE", device.id),
        "credentialsType": kind,
        "credentialsId": identity,
        "credentialsValue": value,
    }


def _parsed_credentials(body: dict[str, Any]) -> Credentials:
    kind = body.get("credentialsType", "ACCESS_TOKEN")
    if kind == "ACCESS_TOKEN":
        if not body.get("credentialsId"):
            raise ApiError(400, "Device credentials id should be specified!", BAD_REQUEST)
        return Credentials(token=str(body["credentialsId"]))
    if kind == "MQTT_BASIC":
        return _basic_credentials(str(body.get("credentialsValue")))
    raise ApiError(400, f"Unknown credentials type {kind}", BAD_REQUEST)


def _basic_credentials(text: str) -> Credentials:
    try:
        fields = json.loads(text)
        return Credentials(None, fields.get("clientId"), fields.get("userName"), fields.get("password"))
    except (ValueError, AttributeError) as error:
        raise ApiError(400, "Invalid credentials body for simple mqtt credentials!", BAD_REQUEST) from error
