"""Bodies of the REST API: reading JSON objects, and the ids and pages that answers are made of."""

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from teg.simulator.thingsboard.rest.errors import BAD_REQUEST, ApiError, checked_id, checked_number

TENANT_ID = "7f2a1b60-3c1e-11ef-9c4d-0b1e2a3c4d5e"
#: What ThingsBoard writes for "no customer".
NO_CUSTOMER_ID = "13814000-1dd2-11b2-8080-808080808080"
PROFILE_ID = "7f4c9d10-3c1e-11ef-9c4d-0b1e2a3c4d5e"


class OrjsonResponse(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


async def json_object(request: Request) -> dict[str, Any]:
    """Raise `ApiError` 400 for anything else."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "Invalid request body", BAD_REQUEST)
    return body


def id_in(body: dict[str, Any], field: str) -> str | None:
    """The UUID of `{"id": ...}` in this field, None without one. Raise `ApiError` 400 for any other shape."""
    value = body.get(field)
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise ApiError(400, "Invalid request body", BAD_REQUEST)
    return checked_id(value["id"])


def entity(kind: str, identity: str) -> dict[str, str]:
    return {"entityType": kind, "id": identity}


def page_of(items: Sequence[Any], request: Request) -> Response:
    """`pageSize` and `page` (from 0) of the query, both needed."""
    size, page = (_needed(request, name) for name in ("pageSize", "page"))
    pages = -(-len(items) // size)
    data = list(items[page * size : (page + 1) * size])
    body = {"data": data, "totalPages": pages, "totalElements": len(items), "hasNext": page + 1 < pages}
    return OrjsonResponse(body)


def _needed(request: Request, name: str) -> int:
    text = request.query_params.get(name)
    if text is None:
        raise ApiError(400, f"Required request parameter '{name}' for method parameter type int is not present", 31)
    number = checked_number(text, name)
    if number < (name == "pageSize"):
        raise ApiError(400, f"Incorrect page link {name} '{number}'.", BAD_REQUEST)
    return number
