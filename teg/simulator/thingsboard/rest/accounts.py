"""Who may use the REST API: user names, passwords, and the JSON web tokens they get for them.

Source: ThingsBoard's JwtTokenFactory (HS512) and RestAuthenticationProvider.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from teg.simulator.thingsboard.rest.bodies import json_object
from teg.simulator.thingsboard.rest.errors import (
    AUTHENTICATION,
    BAD_REQUEST,
    PERMISSION_DENIED,
    TOKEN_EXPIRED,
    ApiError,
)

SYS_ADMIN, TENANT_ADMIN, CUSTOMER_USER = "SYS_ADMIN", "TENANT_ADMIN", "CUSTOMER_USER"


@dataclass(frozen=True, slots=True)
class User:
    """Without a password it was not activated yet."""

    password: str | None
    authority: str
    id: str = ""
    customer_id: str | None = None


#: The administrators of every fresh ThingsBoard with demo data.
DEFAULT_USERS = {
    "tenant@thingsboard.org": User("tenant", TENANT_ADMIN),
    "sysadmin@thingsboard.org": User("sysadmin", SYS_ADMIN),
}
#: JWT_TOKEN_EXPIRATION_TIME and JWT_REFRESH_TOKEN_EXPIRATION_TIME of thingsboard.yml.
TOKEN_S, REFRESH_TOKEN_S = 9_000, 604_800


class Accounts:
    """The signing key is made anew with each stand-in: it outlives a crash, as the real one's does in the database."""

    def __init__(self, users: Mapping[str, User] = DEFAULT_USERS, token_s: float = TOKEN_S) -> None:
        self._users = dict(users)
        self._token_s = token_s
        self._key = secrets.token_bytes(64)

    def routes(self) -> list[Route]:
        return [
            Route("/api/auth/login", self.log_in, methods=["POST"]),
            Route("/api/auth/token", self.refresh, methods=["POST"]),
        ]

    async def log_in(self, request: Request) -> Response:
        body = await json_object(request)
        name, password = body.get("username"), body.get("password")
        user = self._users.get(name) if isinstance(name, str) else None
        if user is None or user.password is None or user.password != password:
            raise ApiError(401, "Invalid username or password", AUTHENTICATION)
        return self._tokens(str(name))

    async def refresh(self, request: Request) -> Response:
        body = await json_object(request)
        claims = self._verified(str(body.get("refreshToken", "")))
        if claims["scopes"] != ["REFRESH_TOKEN"] or claims["sub"] not in self._users:
            raise ApiError(401, "Authentication failed", AUTHENTICATION)
        return self._tokens(claims["sub"])

    def add(self, name: str, user: User) -> None:
        if name in self._users:
            raise ApiError(400, f"User with email '{name}' already present in database!", BAD_REQUEST)
        self._users[name] = user

    def remove(self, unwanted: Callable[[User], bool]) -> None:
        self._users = {name: user for name, user in self._users.items() if not unwanted(user)}

    def activate(self, user_id: str, password: str) -> Response:
        """Its first login."""
        name, user = next((name, user) for name, user in self._users.items() if user.id == user_id)
        self._users[name] = replace(user, password=password)
        return self._tokens(name)

    def check(self, request: Request, *authorities: str) -> User:
        """Raise `ApiError` 401 unless the request carries a token of ours that is still good, 403 for another's."""
        header = request.headers.get("X-Authorization") or request.headers.get("Authorization") or ""
        scheme, _, token = header.partition(" ")
        claims = self._verified(token) if scheme == "Bearer" else {"scopes": ["REFRESH_TOKEN"]}
        if claims["scopes"] == ["REFRESH_TOKEN"] or claims["sub"] not in self._users:
            raise ApiError(401, "Authentication failed", AUTHENTICATION)
        user = self._users[claims["sub"]]
        if user.authority not in authorities:
            raise ApiError(403, "You don't have permission to perform this operation!", PERMISSION_DENIED)
        return user

    def _tokens(self, name: str) -> Response:
        token = self._signed(name, [self._users[name].authority], self._token_s)
        return JSONResponse({"token": token, "refreshToken": self._signed(name, ["REFRESH_TOKEN"], REFRESH_TOKEN_S)})

    def _signed(self, name: str, scopes: list[str], lifetime_s: float) -> str:
        now_s = time.time()
        times = {"iss": "thingsboard.io", "iat": int(now_s), "exp": now_s + lifetime_s}
        claims = {"sub": name, "scopes": scopes, "sessionId": str(uuid.uuid4()), **times}
        text = f"{_base64({'alg': 'HS512'})}.{_base64(claims)}"
        return f"{text}.{self._signature(text)}"

    def _verified(self, token: str) -> dict[str, Any]:
        text, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._signature(text).encode(), signature.encode()):
            raise ApiError(401, "Authentication failed", AUTHENTICATION)
        part = text.partition(".")[2]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        if claims["exp"] <= time.time():
            raise ApiError(401, "Token has expired", TOKEN_EXPIRED)
        return claims

    def _signature(self, text: str) -> str:
        return _text(hmac.new(self._key, text.encode(), hashlib.sha512).digest())


def _base64(part: dict[str, Any]) -> str:
    return _text(json.dumps(part, separators=(",", ":")).encode())


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
