"""Errors as ThingsBoard's REST API words them.

Source: ThingsboardErrorResponse and ThingsboardErrorCode; the telemetry and RPC controllers answer with bare text.
"""

import time
import uuid

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

GENERAL, AUTHENTICATION, TOKEN_EXPIRED = 2, 10, 11
PERMISSION_DENIED = 20
BAD_REQUEST, NOT_FOUND, TOO_MANY_REQUESTS, VERSION_CONFLICT = 31, 32, 33, 35


class ApiError(Exception):
    """Answered as a JSON object; `code` is ThingsBoard's own."""

    def __init__(self, status: int, message: str, code: int) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class PlainError(Exception):
    """Answered as bare text, or with an empty body."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status, self.text = status, text


def api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    body = {"status": error.status, "message": error.message, "errorCode": error.code, "timestamp": _now_ms()}
    return JSONResponse(body, error.status)


def plain_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PlainError)
    return PlainTextResponse(error.text, error.status)


def checked_id(text: str) -> str:
    """A UUID in its usual spelling. Raise `ApiError` 400 for anything else."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ApiError(400, f"Invalid UUID string: {text}", BAD_REQUEST) from None


def checked_number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ApiError(400, f"Parameter '{name}' is no number: {text}", BAD_REQUEST) from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
