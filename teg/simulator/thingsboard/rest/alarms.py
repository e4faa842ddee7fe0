"""The alarms of a device over REST: to read, and to clear.

Source: ThingsBoard's AlarmController.
"""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from teg.simulator.thingsboard.alarm_rules import Alarm
from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.device_state import DeviceState
from teg.simulator.thingsboard.rest.bodies import TENANT_ID, OrjsonResponse, entity, page_of
from teg.simulator.thingsboard.rest.errors import BAD_REQUEST, NOT_FOUND, ApiError, checked_id

_SEARCHES = ("ANY", "ACTIVE", "CLEARED", "ACK", "UNACK")


class Alarms:
    def __init__(self, core: Core) -> None:
        self._core = core

    def routes(self) -> list[Route]:
        return [
            Route("/api/alarm/DEVICE/{device_id}", self.of_device, methods=["GET"]),
            Route("/api/alarm/{alarm_id}", self.get, methods=["GET"]),
            Route("/api/alarm/{alarm_id}/clear", self.clear, methods=["POST"]),
        ]

    async def of_device(self, request: Request) -> Response:
        """Newest first; `searchStatus` chooses."""
        wanted = checked_id(request.path_params["device_id"])
        device = self._core.device_by_id(wanted)
        if device is None:
            raise ApiError(404, f"Device with id [{wanted}] is not found", NOT_FOUND)
        search = request.query_params.get("searchStatus", "ANY")
        if search not in _SEARCHES:
            raise ApiError(400, f"Unknown alarm search status {search}", BAD_REQUEST)
        found = [alarm for alarm in reversed(device.alarms.alarms) if search == "ANY" or search in _words(alarm)]
        return page_of([_json(device, alarm) for alarm in found], request)

    async def get(self, request: Request) -> Response:
        return OrjsonResponse(_json(*self._find(request)))

    async def clear(self, request: Request) -> Response:
        device, alarm = self._find(request)
        alarm.clear_ms = alarm.clear_ms or time.time_ns() // 1_000_000
        return OrjsonResponse(_json(device, alarm))

    def _find(self, request: Request) -> tuple[DeviceState, Alarm]:
        wanted = checked_id(request.path_params["alarm_id"])
        for device in self._core.devices.values():
            for alarm in device.alarms.alarms:
                if alarm.id == wanted:
                    return device, alarm
        raise ApiError(404, f"Alarm with id [{wanted}] is not found", NOT_FOUND)


def _words(alarm: Alarm) -> tuple[str, ...]:
    return ("CLEARED" if alarm.clear_ms else "ACTIVE", "UNACK")


def _json(device: DeviceState, alarm: Alarm) -> dict[str, Any]:
    return {
        "id": entity("ALARM", alarm.id),
        "createdTime": alarm.start_ms,
        "tenantId": entity("TENANT", TENANT_ID),
        "originator": entity("DEVICE", device.id),
        "originatorName": device.name,
        "type": alarm.type,
        "name": alarm.type,
        "severity": alarm.severity,
        "status": alarm.status,
        "acknowledged": False,
        "cleared": bool(alarm.clear_ms),
        "startTs": alarm.start_ms,
        "endTs": alarm.end_ms,
        "clearTs": alarm.clear_ms,
        "details": {} if alarm.details is None else {"data": alarm.details},
    }
