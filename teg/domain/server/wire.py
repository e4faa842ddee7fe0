"""The ThingsBoard device wire: topics, and the translation between bytes and our types.

Source: ThingsBoard MQTT device API, https://thingsboard.io/docs/reference/mqtt-api/ (v1 topics, JSON payloads).
Everything here is pure: bytes in, values out. A payload that cannot be understood raises `Refused`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from teg.domain.errors import Refused
from teg.domain.limits import MAX_PAYLOAD_BYTES as MAX_PAYLOAD_BYTES

TELEMETRY = "v1/devices/me/telemetry"
#: The same for servers since 3.3; an older one, or a plain broker, acknowledges it and drops the data.
TELEMETRY_SHORT = "v2/t"
#: Of a device that the server knows as a gateway: for other devices, each by its name.
GATEWAY_TELEMETRY = "v1/gateway/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
ATTRIBUTE_REQUEST = "v1/devices/me/attributes/request/{id}"
ATTRIBUTE_RESPONSE = "v1/devices/me/attributes/response/{id}"
RPC_REQUEST = "v1/devices/me/rpc/request/{id}"
RPC_RESPONSE = "v1/devices/me/rpc/response/{id}"
SOFTWARE_CHUNK_REQUEST = "v2/sw/request/{id}/chunk/{chunk}"
SOFTWARE_CHUNK_RESPONSE = "v2/sw/response/{id}/chunk/{chunk}"
OTA_ERROR = "v2/fw/error"
PROVISION_REQUEST = "/provision/request"
PROVISION_RESPONSE = "/provision/response"
PROVISION_USER = "provision"

#: The only filters a session subscribes to; the server refuses every other spelling with SUBACK 0x80.
SUBSCRIPTIONS = (
    "v1/devices/me/rpc/request/+",
    ATTRIBUTES,
    "v1/devices/me/attributes/response/+",
)
#: Topics that the same session publishes to again and again; the others have a number of their own in them.
REPEATED_TOPICS = (TELEMETRY, ATTRIBUTES, GATEWAY_TELEMETRY)
SOFTWARE_CHUNK_FILTER = "v2/sw/response/+/chunk/+"

#: Unacknowledged publishes at any moment, over all topics (the server queues 100).
MAX_UNACKNOWLEDGED = 20

#: Telemetry the server stores nothing for but acknowledges: tells a poisoned payload from a sick server.
PROBE = b"{}"

_RPC_REQUEST_TOPIC = re.compile(r"v1/devices/me/rpc/request/(-?\d{1,10})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """A call from the server. `params` is any JSON value, None when the caller gave none."""

    id: int
    method: str
    params: Any


@dataclass(frozen=True, slots=True)
class AttributePush:
    """Shared attributes that changed or were deleted while we were subscribed: a hint, not the truth."""

    changed: Mapping[str, Any]
    deleted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attributes:
    """The answer to an attribute request; a key that the server does not have is absent."""

    client: Mapping[str, Any]
    shared: Mapping[str, Any]


def parse_message(topic: str, payload: bytes) -> RpcRequest | AttributePush | None:
    """Return what the server wants from us, or None for a topic that carries no request.

    Raises:
        Refused: the topic is one of ours but the payload is not what ThingsBoard sends on it.
    """
    if topic == ATTRIBUTES:
        return parse_attribute_push(payload)
    if (request_id := parse_rpc_topic(topic)) is not None:
        return parse_rpc_request(request_id, payload)
    return None


def parse_rpc_topic(topic: str) -> int | None:
    """The number of the call on a request topic, None for any other topic."""
    match = _RPC_REQUEST_TOPIC.match(topic)
    return int(match[1]) if match else None


def parse_rpc_request(request_id: int, payload: bytes) -> RpcRequest:
    body = _parse_object(payload)
    method = body.get("method")
    if not isinstance(method, str) or not method:
        raise Refused("RPC request without a method name")
    return RpcRequest(request_id, method, body.get("params"))


def parse_attribute_push(payload: bytes) -> AttributePush:
    body = dict(_parse_object(payload))
    deleted = body.get("deleted")
    if isinstance(deleted, list) and all(isinstance(key, str) for key in deleted):
        body.pop("deleted")
        return AttributePush(body, tuple(deleted))
    return AttributePush(body, ())


def parse_attributes(payload: bytes) -> Attributes:
    """Parse the payload of an attribute response; both sections may be left out by the server."""
    body = _parse_object(payload)
    return Attributes(_section(body, "client"), _section(body, "shared"))


def encode_attribute_request(client_keys: Iterable[str] = (), shared_keys: Iterable[str] = ()) -> bytes:
    """Keys go as one comma-separated string; the server cuts the session on a JSON array."""
    wanted: dict[str, str] = {}
    for name, keys in (("clientKeys", client_keys), ("sharedKeys", shared_keys)):
        if joined := ",".join(keys):
            wanted[name] = joined
    return orjson.dumps(wanted)


def addressed_to(device: str, payload: bytes) -> tuple[str, bytes]:
    """Topic and payload of telemetry: the session's own (empty name), or, through a gateway, that of another device.

    What is no array (a probe) is the session's own in any case.
    """
    if not device or not payload.startswith(b"["):
        return TELEMETRY, payload
    return GATEWAY_TELEMETRY, b"{%s:%s}" % (orjson.dumps(device), payload)


def encode_telemetry(ts_ms: int, values: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"ts": ts_ms, "values": values})


def encode_rpc_response(message: Any) -> bytes:
    """`{"message": X}`, the shape every answer of the gateway has."""
    return orjson.dumps({"message": message})


def encode_client_rpc(method: str, params: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"method": method, "params": params})


def _section(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = body.get(name, {})
    if not isinstance(section, dict):
        raise Refused(f"attribute response whose '{name}' is not an object")
    return section


def _parse_object(payload: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Refused(f"payload is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(f"payload is a JSON {type(body).__name__}, not an object")
    return body


def encodable(text: str) -> str:
    """Text that JSON can carry: lone surrogates (odd file names in errors) become question marks."""
    return text.encode(errors="replace").decode()


# --- answers that are too long ------------------------------------------------------------------------------

NOTE = "… [{left_out} characters left out: the answer was too long] …"


def fitted(message: Any) -> Any:
    """`message` itself when its response fits, else a shortened one with a note.

    Text keeps head and tail, a list its last lines; anything else becomes text first.
    """
    message = _encodable(message)
    if _fits(message):
        return message
    if isinstance(message, list):
        return _last_lines(message)
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    return _head_and_tail(text)


def _fits(message: Any) -> bool:
    return len(encode_rpc_response(message)) <= MAX_PAYLOAD_BYTES


def _encodable(message: Any) -> Any:
    """Lone surrogates (file names, foreign output) have no UTF-8 form: they become question marks."""
    try:
        encode_rpc_response(message)
    except TypeError:
        return str(message).encode("utf-8", "replace").decode()
    return message


def _head_and_tail(text: str) -> str:
    """The longest cut that fits, found by halving: how long JSON makes a character depends on the character."""
    kept, too_long = 0, min(len(text), MAX_PAYLOAD_BYTES)
    while too_long - kept > 1:
        middle = (kept + too_long) // 2
        kept, too_long = (middle, too_long) if _fits(_cut(text, middle)) else (kept, middle)
    return _cut(text, kept)


def _cut(text: str, kept: int) -> str:
    head = kept // 2
    tail = kept - head
    return text[:head] + "\n" + NOTE.format(left_out=len(text) - kept) + "\n" + text[len(text) - tail :]


def _last_lines(lines: list[Any]) -> list[Any]:
    kept, too_many = 0, len(lines)
    while too_many - kept > 1:
        middle = (kept + too_many) // 2
        kept, too_many = (middle, too_many) if _fits(_tail(lines, middle)) else (kept, middle)
    return _tail(lines, kept)


def _tail(lines: list[Any], kept: int) -> list[Any]:
    return [f"… [{len(lines) - kept} earlier lines left out: the answer was too long]", *lines[len(lines) - kept :]]
