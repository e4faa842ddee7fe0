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
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from teg.simulator.thingsboard.rest.bodies import json_object
from teg.simulator.thingsboard.rest.errors import AUTHENTICATION, TOKEN_EXPIRED, ApiError

#: The tenant administrator of every fresh ThingsBoard with demo data.
DEFAULT_USERS = {"tenant@thingsboard.org": "tenant"}
#: JWT_TOKEN_EXPIRATION_TIME and JWT_REFRESH_TOKEN_EXPIRATION_TIME of thingsboard.yml.
TOKEN_S, REFRESH_TOKEN_S = 9_000, 604_800


class Accounts:
    """The signing key is made anew with each stand-in: it outlives a crash, as the real one's does in the database."""

    def __init__(self, users: Mapping[str, str] = DEFAULT_USERS, token_s: float = TOKEN_S) -> None:
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
        if not isinstance(name, str) or not isinstance(password, str) or self._users.get(name) != password:
            raise ApiError(401, "Invalid username or password", AUTHENTICATION)
        return self._tokens(name)

    async def refresh(self, request: Request) -> Response:
        body = await json_object(request)
        claims = self._verified(str(body.get("refreshToken", "")))
        if claims["scopes"] != ["REFRESH_TOKEN"]:
            raise ApiError(401, "Authentication failed", AUTHENTICATION)
        return self._tokens(claims["sub"])

    def check(self, request: Request) -> None:
        """Raise `ApiError` 401 unless the request carries a token of ours that is still good."""
        header = request.headers.get("X-Authorization") or request.headers.get("Authorization") or ""
        scheme, _, token = header.partition(" ")
        if scheme != "Bearer" or self._verified(token)["scopes"] != ["TENANT_ADMIN"]:
            raise ApiError(401, "Authentication failed", AUTHENTICATION)

    def _tokens(self, name: str) -> Response:
        token = self._signed(name, ["TENANT_ADMIN"], self._token_s)
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
