"""The REST API as one application: every path, who may use it, and how errors are answered."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.rest.accounts import Accounts
from teg.simulator.thingsboard.rest.alarms import Alarms
from teg.simulator.thingsboard.rest.calls import Calls
from teg.simulator.thingsboard.rest.dashboards import Dashboards
from teg.simulator.thingsboard.rest.devices import Devices
from teg.simulator.thingsboard.rest.errors import ApiError, PlainError, api_error, plain_error
from teg.simulator.thingsboard.rest.packages import Packages
from teg.simulator.thingsboard.rest.profiles import Profiles
from teg.simulator.thingsboard.rest.telemetry import Telemetry

Handler = Callable[[Request], Awaitable[Response]]


def rest_api(core: Core, accounts: Accounts) -> Starlette:
    packages, profiles = Packages(), Profiles(core)
    groups = (
        Devices(core, packages, profiles),
        packages,
        profiles,
        Dashboards(),
        Calls(core),
        Telemetry(core),
        Alarms(core),
    )
    inner = [_guarded(route, core, accounts) for group in groups for route in group.routes()]
    handlers = {ApiError: api_error, PlainError: plain_error}
    return Starlette(routes=[*accounts.routes(), *inner], exception_handlers=handlers)


def _guarded(route: Route, core: Core, accounts: Accounts) -> Route:
    """With a token only; whoever waits for what the request changed is woken; what fails in here fails the test."""
    handler: Handler = route.endpoint

    async def guarded(request: Request) -> Response:
        accounts.check(request)
        try:
            return await handler(request)
        except (ApiError, PlainError):
            raise
        except Exception as error:
            core.loop.call_exception_handler({"message": f"REST {request.url.path}", "exception": error})
            raise
        finally:
            core.changes.notify()

    return Route(route.path, guarded, methods=list(route.methods or ()))
