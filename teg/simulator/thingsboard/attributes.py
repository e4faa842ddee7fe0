"""The client and shared attributes of one device, and the answer to a request for some of them."""

import time
from typing import Any, Literal

from teg.simulator.thingsboard.payloads import BadPayload, parse_exact, parse_object
from teg.simulator.thingsboard.typing_rules import SKIPPED, stored, typed

#: Names wanted from a scope: None = not asked for, an empty list = all of them.
Names = list[str] | None


Scope = Literal["CLIENT_SCOPE", "SHARED_SCOPE", "SERVER_SCOPE"]


class AttributeStore:
    """Values are typed as ThingsBoard types them, also those the operator sets (`"42"` becomes 42)."""

    def __init__(self) -> None:
        self.client: dict[str, Any] = {}
        self.shared: dict[str, Any] = {}
        self.server: dict[str, Any] = {}
        self._updated_ms: dict[tuple[Scope, str], int] = {}

    def of(self, scope: Scope) -> dict[str, Any]:
        return {"CLIENT_SCOPE": self.client, "SHARED_SCOPE": self.shared, "SERVER_SCOPE": self.server}[scope]

    def write(self, scope: Scope, values: dict[str, Any]) -> None:
        """As they are, typed before."""
        now_ms = time.time_ns() // 1_000_000
        self.of(scope).update(values)
        self._updated_ms.update({(scope, key): now_ms for key in values})

    def delete(self, scope: Scope, key: str) -> None:
        self.of(scope).pop(key, None)

    def updated_ms(self, scope: Scope, key: str) -> int:
        return self._updated_ms.get((scope, key), 0)

    def merge_client(self, payload: bytes) -> None:
        """Merge by key, null is skipped. They go through the rule chain as telemetry does."""
        values = {key: stored(raw) for key, raw in parse_exact(payload).items()}
        self.write("CLIENT_SCOPE", {key: value for key, value in values.items() if value is not SKIPPED})

    def answer(self, client: Names, shared: Names) -> dict[str, dict[str, Any]]:
        """A section without any value is left out."""
        sections = {"client": _select(self.client, client), "shared": _select(self.shared, shared)}
        return {name: values for name, values in sections.items() if values}


def typed_values(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, raw in values.items() if (value := typed(raw)) is not SKIPPED}


def parse_request(payload: bytes) -> tuple[Names, Names]:
    """(client names, shared names). With neither of them in the request, all of both are wanted."""
    body = parse_object(payload)
    client, shared = _names(body, "clientKeys"), _names(body, "sharedKeys")
    return ([], []) if client is None and shared is None else (client, shared)


def has_empty_name(*scopes: Names) -> bool:
    """An empty name fails in the server's database layer: the request is acknowledged and never answered."""
    return any("" in names for names in scopes if names)


def _names(body: dict[str, Any], field: str) -> Names:
    """One comma-separated string, not trimmed; Java's split drops empty names at the end."""
    if field not in body:
        return None
    value = body[field]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, dict | list):
        raise BadPayload(f"'{field}' is a comma-separated string, not {type(value).__name__}")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return (text.rstrip(",") if "," in text else text).split(",")


def _select(values: dict[str, Any], names: Names) -> dict[str, Any]:
    if names is None:
        return {}
    return {key: values[key] for key in (names or values) if key in values}
