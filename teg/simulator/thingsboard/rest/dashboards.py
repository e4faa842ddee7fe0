"""Dashboards over REST: kept and given back; nobody draws them here.

Source: ThingsBoard's DashboardController.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.rest.bodies import OrjsonResponse, json_object, page_of
from teg.simulator.thingsboard.rest.collection import Collection


class Dashboards:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._dashboards = Collection("DASHBOARD", "Dashboard", "title")

    def routes(self) -> list[Route]:
        return [
            Route("/api/dashboard", self.save, methods=["POST"]),
            Route("/api/dashboard/info/{dashboard_id}", self.info, methods=["GET"]),
            Route("/api/dashboard/{dashboard_id}", self.get, methods=["GET"]),
            Route("/api/dashboard/{dashboard_id}", self.delete, methods=["DELETE"]),
            Route("/api/tenant/dashboards", self.find, methods=["GET"]),
        ]

    async def save(self, request: Request) -> Response:
        body = await json_object(request)
        if self._core.faults.forget_contents:
            body = {field: value for field, value in body.items() if field not in ("configuration", "version")}
        return OrjsonResponse(self._dashboards.save(body))

    async def get(self, request: Request) -> Response:
        return OrjsonResponse(self._dashboards.find(request.path_params["dashboard_id"]))

    async def info(self, request: Request) -> Response:
        return OrjsonResponse(_info(self._dashboards.find(request.path_params["dashboard_id"])))

    async def delete(self, request: Request) -> Response:
        self._dashboards.delete(request.path_params["dashboard_id"])
        return Response()

    async def find(self, request: Request) -> Response:
        found = self._dashboards.search(request.query_params.get("textSearch", ""))
        return page_of([_info(dashboard) for dashboard in found], request)


def _info(dashboard: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in dashboard.items() if field != "configuration"}
