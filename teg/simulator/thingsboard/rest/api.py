"""The REST API as one application: every path, who may use it, and how errors are answered."""

import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.rate_limits import TokenBucket
from teg.simulator.thingsboard.rest.accounts import CUSTOMER_USER, SYS_ADMIN, TENANT_ADMIN, Accounts
from teg.simulator.thingsboard.rest.alarms import Alarms
from teg.simulator.thingsboard.rest.bodies import OrjsonResponse
from teg.simulator.thingsboard.rest.calls import Calls
from teg.simulator.thingsboard.rest.customers import CLAIM_PATH, Customers
from teg.simulator.thingsboard.rest.dashboards import Dashboards
from teg.simulator.thingsboard.rest.devices import Devices
from teg.simulator.thingsboard.rest.errors import (
    TOO_MANY_REQUESTS,
    ApiError,
    PlainError,
    api_error,
    plain_error,
)
from teg.simulator.thingsboard.rest.packages import Packages
from teg.simulator.thingsboard.rest.profiles import Profiles
from teg.simulator.thingsboard.rest.telemetry import Telemetry

Handler = Callable[[Request], Awaitable[Response]]

INFO_PATH = "/api/system/info"
#: Path -> who may use it; every other is the tenant administrator's.
_OPEN_TO = {INFO_PATH: (SYS_ADMIN, TENANT_ADMIN, CUSTOMER_USER), CLAIM_PATH: (TENANT_ADMIN, CUSTOMER_USER)}


def rest_api(core: Core, accounts: Accounts) -> Starlette:
    packages, profiles, customers = Packages(), Profiles(core), Customers(core, accounts)
    groups = (
        Devices(core, packages, profiles),
        packages,
        profiles,
        customers,
        Dashboards(core),
        Calls(core),
        Telemetry(core),
        Alarms(core),
    )
    guard = _Guard(core, accounts)
    routes = [Route(INFO_PATH, _info(core)), *(route for group in groups for route in group.routes())]
    handlers = {ApiError: api_error, PlainError: plain_error}
    unguarded = [*accounts.routes(), *customers.open_routes()]
    return Starlette(routes=[*unguarded, *map(guard.guarded, routes)], exception_handlers=handlers)


def _info(core: Core) -> Handler:
    async def info(_request: Request) -> Response:
        return OrjsonResponse({"version": core.limits.version, "artifact": "application", "name": "Stand-in"})

    return info


class _Guard:
    """With a token only, and within the tenant's limit; whoever waits for what the request changed is woken; what fails
    in here fails the test."""

    def __init__(self, core: Core, accounts: Accounts) -> None:
        self._core = core
        self._accounts = accounts
        self._tenant = TokenBucket(core.limits.rest_rate_limit)

    def guarded(self, route: Route) -> Route:
        handler: Handler = route.endpoint
        authorities = _OPEN_TO.get(route.path, (TENANT_ADMIN,))

        async def guarded(request: Request) -> Response:
            self._admit(request, authorities)
            try:
                return await handler(request)
            except (ApiError, PlainError):
                raise
            except Exception as error:
                self._core.loop.call_exception_handler({"message": f"REST {request.url.path}", "exception": error})
                raise
            finally:
                self._core.changes.notify()

        return Route(route.path, guarded, methods=list(route.methods or ()))

    def _admit(self, request: Request, authorities: tuple[str, ...]) -> None:
        self._accounts.check(request, *authorities)
        if not self._core.faults.ignore_rate_limits and not self._tenant.take(1, time.monotonic()):
            raise ApiError(429, "Too many requests for current tenant!", TOO_MANY_REQUESTS)
