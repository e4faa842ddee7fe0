"""Calls to a device over REST, and the states of persistent ones.

Source: ThingsBoard's RpcV1Controller, RpcV2Controller and AbstractRpcController.
"""

import asyncio
import time
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.device_state import DeviceState
from teg.simulator.thingsboard.rest.bodies import TENANT_ID, OrjsonResponse, entity, json_object, page_of
from teg.simulator.thingsboard.rest.errors import BAD_REQUEST, NOT_FOUND, ApiError, PlainError, checked_id
from teg.simulator.thingsboard.rpc import RpcCall, RpcOutcome

DEFAULT_TIMEOUT_MS = 10_000


class Calls:
    def __init__(self, core: Core) -> None:
        self._core = core

    def routes(self) -> list[Route]:
        posts = [
            Route(f"{prefix}/{way}/{{device_id}}", self.call, methods=["POST"], name=f"{way} {prefix}")
            for prefix in ("/api/rpc", "/api/plugins/rpc")
            for way in ("oneway", "twoway")
        ]
        return [
            *posts,
            Route("/api/rpc/persistent/device/{device_id}", self.of_device, methods=["GET"]),
            Route("/api/rpc/persistent/{rpc_id}", self.state, methods=["GET"]),
            Route("/api/rpc/persistent/{rpc_id}", self.delete, methods=["DELETE"]),
        ]

    async def call(self, request: Request) -> Response:
        """Wait for the outcome; of a persistent call the answer is its id, at once."""
        body = await json_object(request)
        device = self._device(request)
        call = self._parsed(request.url.path, body)
        outcome: asyncio.Future[RpcOutcome] = asyncio.get_running_loop().create_future()
        call.answered = partial(_resolve, outcome)
        device.rpc.submit(call)
        self._core.changes.notify()
        if self._core.faults.calls_succeed and not call.persistent:
            return Response()
        return _answer(call, await outcome)

    async def state(self, request: Request) -> Response:
        told = {"status": "SUCCESSFUL"} if self._core.faults.calls_succeed else {}
        return OrjsonResponse(_call_json(*self._find(request)) | told)

    async def delete(self, request: Request) -> Response:
        device, call = self._find(request)
        device.rpc.delete(call)
        del device.rpc.persistent[call.rpc_id]
        return Response()

    async def of_device(self, request: Request) -> Response:
        device, wanted = self._device(request), request.query_params.get("rpcStatus")
        calls = [
            call
            for call in device.rpc.persistent.values()
            if self._core.faults.calls_succeed or wanted in (None, call.state)
        ]
        return page_of([_call_json(device, call) for call in calls], request)

    def _device(self, request: Request) -> DeviceState:
        device = self._core.device_by_id(checked_id(request.path_params["device_id"]))
        if device is None:
            raise PlainError(404, "Device with requested id wasn't found!")
        return device

    def _find(self, request: Request) -> tuple[DeviceState, RpcCall]:
        wanted = checked_id(request.path_params["rpc_id"])
        for device in self._core.devices.values():
            if call := device.rpc.persistent.get(wanted):
                return device, call
        raise ApiError(404, f"Rpc with id [{wanted}] is not found", NOT_FOUND)

    def _parsed(self, path: str, body: dict[str, Any]) -> RpcCall:
        """`expirationTime` (ms since 1970) overrides `timeout` (ms), which has a minimum on the server."""
        limits = self._core.limits
        if "method" not in body:
            raise ApiError(400, "Invalid request body", BAD_REQUEST)
        timeout_s = max(_number(body, "timeout", DEFAULT_TIMEOUT_MS) / 1000, limits.rpc_min_timeout_s)
        if "expirationTime" in body:
            timeout_s = max(_number(body, "expirationTime", 0) / 1000 - time.time(), 0)
        return RpcCall(
            str(body["method"]),
            body.get("params"),
            timeout_s,
            "/oneway/" in path,
            body.get("persistent") is True,
            path.startswith("/api/plugins/"),
            min(_number(body, "retries", limits.rpc_max_retries), limits.rpc_max_retries),
        )


def _resolve(future: "asyncio.Future[RpcOutcome]", outcome: RpcOutcome) -> None:
    """The caller may have gone away meanwhile."""
    if not future.done():
        future.set_result(outcome)


def _number(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ApiError(400, "Invalid request body", BAD_REQUEST)
    return value


def _answer(call: RpcCall, outcome: RpcOutcome) -> Response:
    """Nobody reads the 503 of a server that went away meanwhile: the connection of the caller ended with it."""
    if outcome.status != 200:
        return Response(status_code=outcome.status or 503)
    if call.persistent:
        return OrjsonResponse(outcome.response)
    return OrjsonResponse(orjson.Fragment(call.answer)) if call.answer else Response()


def _call_json(device: DeviceState, call: RpcCall) -> dict[str, Any]:
    expires_ms = call.created_ms + int(call.timeout_s * 1000)
    params = None if call.params is None else orjson.dumps(call.params).decode()
    request = {"id": call.rpc_id, "oneway": call.one_way, "persisted": True, "expirationTime": expires_ms}
    return {
        "id": entity("RPC", call.rpc_id),
        "createdTime": call.created_ms,
        "tenantId": entity("TENANT", TENANT_ID),
        "deviceId": entity("DEVICE", device.id),
        "expirationTime": expires_ms,
        "request": {**request, "body": {"method": call.method, "params": params}, "retries": call.max_retries},
        "response": call.response,
        "status": call.state,
        "additionalInfo": None,
    }
