"""Attributes and time series of a device over REST.

Source: ThingsBoard's TelemetryController.
"""

import time
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from teg.simulator.thingsboard.activity import activity_attributes
from teg.simulator.thingsboard.attributes import Scope, typed_values
from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.device_state import DeviceState
from teg.simulator.thingsboard.payloads import BadPayload, check_telemetry, records_in
from teg.simulator.thingsboard.rest.bodies import OrjsonResponse
from teg.simulator.thingsboard.rest.errors import PlainError, checked_id, checked_number
from teg.simulator.thingsboard.typing_rules import java_text

_PREFIX = "/api/plugins/telemetry"
_SCOPES: tuple[Scope, ...] = ("CLIENT_SCOPE", "SHARED_SCOPE", "SERVER_SCOPE")


class Telemetry:
    def __init__(self, core: Core) -> None:
        self._core = core

    def routes(self) -> list[Route]:
        device = _PREFIX + "/DEVICE/{device_id}"
        reading = {"values/attributes": self.attributes, "values/attributes/{scope}": self.attributes}
        reading |= {"values/timeseries": self.timeseries, "keys/timeseries": self.timeseries_keys}
        reading |= {"keys/attributes": self.attribute_keys, "keys/attributes/{scope}": self.attribute_keys}
        reading |= {"values/timeseries/history": self.timeseries}  # as 4.4 spells the range
        writing = (f"{device}/{{scope}}", f"{device}/attributes/{{scope}}", _PREFIX + "/{device_id}/{scope}")
        return [
            *(Route(f"{device}/{path}", handler, methods=["GET"]) for path, handler in reading.items()),
            Route(f"{device}/timeseries/{{scope}}", self.save_timeseries, methods=["POST"]),
            *(Route(path, self.save_attributes, methods=["POST"]) for path in writing),
            *(Route(path, self.delete_attributes, methods=["DELETE"]) for path in writing),
        ]

    async def attributes(self, request: Request) -> Response:
        """Of one scope or all; `keys` chooses. A key that does not exist is left out."""
        device, keys = self._device(request), _keys(request)
        found = [(scope, key, value) for scope in _scopes(request) for key, value in self._of(device, scope).items()]
        return OrjsonResponse(
            [
                {"lastUpdateTs": device.attributes.updated_ms(scope, key), "key": key, "value": value}
                for scope, key, value in found
                if keys is None or key in keys
            ]
        )

    async def attribute_keys(self, request: Request) -> Response:
        device = self._device(request)
        return OrjsonResponse(sorted({key for scope in _scopes(request) for key in self._of(device, scope)}))

    def _of(self, device: DeviceState, scope: Scope) -> dict[str, Any]:
        """What the operator wrote to the server scope goes before what the server notes there itself."""
        own = device.attributes.of(scope)
        if scope != "SERVER_SCOPE" or self._core.faults.forget_activity:
            return own
        return activity_attributes(device, self._core.limits.device_inactive_s) | own

    async def save_attributes(self, request: Request) -> Response:
        device, scope = self._device(request), _writable_scope(request)
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError as error:
            raise PlainError(400, f"Unable to parse attributes payload: {error}") from error
        if not isinstance(body, dict):
            raise PlainError(400, "Request is not a JSON object")
        if not body:
            raise PlainError(400, "No attributes data found in request body!")
        if scope == "SHARED_SCOPE":
            device.write_shared(body)
        else:
            device.attributes.write("SERVER_SCOPE", typed_values(body))
        return Response()

    async def delete_attributes(self, request: Request) -> Response:
        device, scope, keys = self._device(request), _writable_scope(request), _keys(request)
        if not keys:
            raise PlainError(400, f"Empty keys: {request.query_params.get('keys', '')}")
        if scope == "SHARED_SCOPE":
            device.delete_shared(keys)
        else:
            for key in keys:
                device.attributes.delete(scope, key)
        return Response()

    async def timeseries_keys(self, request: Request) -> Response:
        return OrjsonResponse(self._device(request).series_keys())

    async def timeseries(self, request: Request) -> Response:
        """The latest values, or with `keys`, `startTs` and `endTs` those of a range (its end not included)."""
        device, parameters = self._device(request), request.query_params
        keys = _keys(request)
        if keys and "startTs" in parameters and "endTs" in parameters:
            series = {key: _range(device.series(key), request) for key in keys}
            found = {key: points for key, points in series.items() if points}
        else:
            found = {key: [_latest(device.series(key))] for key in (keys or device.series_keys())}
        strict = parameters.get("useStrictDataTypes") == "true"
        return OrjsonResponse({key: [_point(*point, strict) for point in points] for key, points in found.items()})

    async def save_timeseries(self, request: Request) -> Response:
        """In any form that telemetry has on MQTT; it does not pass the rule chain."""
        device, payload = self._device(request), await request.body()
        try:
            records = list(records_in(payload, time.time_ns() // 1_000_000)) if check_telemetry(payload) else []
        except BadPayload as error:
            raise PlainError(400, f"Unable to parse timeseries payload: {error}") from error
        if not any(values for _, values in records):
            raise PlainError(400, "No timeseries data found in request body!")
        for ts_ms, values in records:
            device.telemetry.store_typed(ts_ms, typed_values(values))
        return Response()

    def _device(self, request: Request) -> DeviceState:
        device = self._core.device_by_id(checked_id(request.path_params["device_id"]))
        if device is None:
            raise PlainError(404, "Device with requested id wasn't found!")
        return device


def _keys(request: Request) -> list[str] | None:
    text = request.query_params.get("keys")
    return None if text is None else [key for key in text.split(",") if key]


def _scopes(request: Request) -> tuple[Scope, ...]:
    return (_scope(request),) if "scope" in request.path_params else _SCOPES


def _scope(request: Request) -> Scope:
    text = request.path_params["scope"]
    for scope in _SCOPES:
        if scope == text:
            return scope
    raise PlainError(400, f"Invalid scope: {text}")


def _writable_scope(request: Request) -> Scope:
    scope = _scope(request)
    if scope == "CLIENT_SCOPE":
        raise PlainError(400, f"Invalid scope: {scope}")
    return scope


def _latest(series: dict[int, Any]) -> tuple[int, Any]:
    """A key that was asked for and has no value comes with null and the time of the server."""
    return max(series.items()) if series else (time.time_ns() // 1_000_000, None)


def _range(series: dict[int, Any], request: Request) -> list[tuple[int, Any]]:
    """Newest first unless `orderBy` is ASC, 100 points unless `limit` says otherwise; never aggregated."""
    parameters = request.query_params
    if parameters.get("agg", "NONE") != "NONE" and parameters.get("interval", "0") != "0":
        raise PlainError(501, "The stand-in does not aggregate")
    start, end = (checked_number(parameters[name], name) for name in ("startTs", "endTs"))
    points = sorted(ts for ts in series if start <= ts < end)
    if parameters.get("orderBy", "DESC") == "DESC":
        points.reverse()
    return [(ts, series[ts]) for ts in points[: checked_number(parameters.get("limit", "100"), "limit")]]


def _point(ts_ms: int, value: Any, strict: bool) -> dict[str, Any]:
    return {"ts": ts_ms, "value": value if strict or value is None else _as_text(value)}


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return java_text(value)
    return orjson.dumps(value).decode()
