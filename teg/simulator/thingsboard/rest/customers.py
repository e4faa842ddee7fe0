"""Customers, their users, and the devices that they claim.

Source: ThingsBoard's CustomerController, UserController, AuthController (activation) and DeviceController (claiming).
"""

import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from teg.simulator.thingsboard.claiming import outcome
from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.device_state import DeviceState
from teg.simulator.thingsboard.rest.accounts import CUSTOMER_USER, Accounts, User
from teg.simulator.thingsboard.rest.bodies import NO_CUSTOMER_ID, OrjsonResponse, entity, id_in, json_object, page_of
from teg.simulator.thingsboard.rest.collection import Collection
from teg.simulator.thingsboard.rest.devices import device_json
from teg.simulator.thingsboard.rest.errors import BAD_REQUEST, NOT_FOUND, ApiError

CLAIM_PATH = "/api/customer/device/{device_name}/claim"


class Customers:
    def __init__(self, core: Core, accounts: Accounts) -> None:
        self._core = core
        self._accounts = accounts
        self._customers = Collection("CUSTOMER", "Customer", "title")
        #: Id of a user that was not activated yet -> its activation token.
        self._links: dict[str, str] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/api/customer", self.save, methods=["POST"]),
            Route("/api/customer/{customer_id}", self.delete, methods=["DELETE"]),
            Route("/api/customers", self.find, methods=["GET"]),
            Route("/api/user", self.save_user, methods=["POST"]),
            Route("/api/user/{user_id}", self.delete_user, methods=["DELETE"]),
            Route("/api/user/{user_id}/activationLink", self.activation_link, methods=["GET"]),
            Route(CLAIM_PATH, self.claim, methods=["POST"]),
            Route(CLAIM_PATH, self.reclaim, methods=["DELETE"]),
        ]

    def open_routes(self) -> list[Route]:
        """Without a token of ours."""
        return [Route("/api/noauth/activate", self.activate, methods=["POST"])]

    async def save(self, request: Request) -> Response:
        return OrjsonResponse(self._customers.save(await json_object(request)))

    async def find(self, request: Request) -> Response:
        return page_of(self._customers.search(request.query_params.get("textSearch", "")), request)

    async def delete(self, request: Request) -> Response:
        """Its users go with it, its devices are nobody's again."""
        customer = self._customers.find(request.path_params["customer_id"])["id"]
        self._customers.delete(customer["id"])
        self._accounts.remove(lambda user: user.customer_id == customer["id"])
        for device in self._core.devices.values():
            if device.details.get("customerId") == customer:
                device.details["customerId"] = entity("CUSTOMER", NO_CUSTOMER_ID)
        return Response()

    async def save_user(self, request: Request) -> Response:
        """Of a customer only; it can log in once it was activated."""
        body = await json_object(request)
        email, customer = body.get("email"), id_in(body, "customerId")
        if body.get("authority") != CUSTOMER_USER or customer is None or not isinstance(email, str):
            raise ApiError(400, "The stand-in makes users of customers only", BAD_REQUEST)
        self._customers.find(customer)
        identity = str(uuid.uuid1())
        self._accounts.add(email, User(None, CUSTOMER_USER, identity, customer))
        self._links[identity] = uuid.uuid4().hex
        return OrjsonResponse({**body, "id": entity("USER", identity)})

    async def delete_user(self, request: Request) -> Response:
        wanted = request.path_params["user_id"]
        self._accounts.remove(lambda user: user.id == wanted)
        self._links.pop(wanted, None)
        return Response()

    async def activation_link(self, request: Request) -> Response:
        token = self._links.get(request.path_params["user_id"])
        if token is None:
            raise ApiError(400, "User is already activated!", BAD_REQUEST)
        return PlainTextResponse(f"{request.base_url}api/noauth/activate?activateToken={token}")

    async def activate(self, request: Request) -> Response:
        body = await json_object(request)
        user_id = next((known for known, token in self._links.items() if token == body.get("activateToken")), None)
        if user_id is None or not isinstance(body.get("password"), str):
            raise ApiError(404, "Requested item wasn't found!", NOT_FOUND)
        del self._links[user_id]
        return self._accounts.activate(user_id, body["password"])

    async def claim(self, request: Request) -> Response:
        device, user = self._device(request), self._accounts.check(request, CUSTOMER_USER)
        body = await json_object(request) if await request.body() else {}
        taken = device.details.get("customerId", {}).get("id", NO_CUSTOMER_ID) != NO_CUSTOMER_ID
        said = outcome(device.claim, body.get("secretKey") or "", taken)
        device.claim = None
        if self._core.faults.grant_claims:
            said = "SUCCESS"
        if said != "SUCCESS":
            return OrjsonResponse(said, 400)
        device.details["customerId"] = entity("CUSTOMER", str(user.customer_id))
        return OrjsonResponse({"device": device_json(device), "response": said})

    async def reclaim(self, request: Request) -> Response:
        device: DeviceState = self._device(request)
        device.details["customerId"] = entity("CUSTOMER", NO_CUSTOMER_ID)
        return Response()

    def _device(self, request: Request) -> Any:
        device = self._core.devices.get(request.path_params["device_name"])
        if device is None:
            raise ApiError(404, "Requested item wasn't found!", NOT_FOUND)
        return device
