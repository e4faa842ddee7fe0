"""The device topics in their three spellings, and what a publish to each of them means.

Source: ThingsBoard's MqttTopics. `v1` is the long form, `v2` the short one, `v2/j` the short one that is
always JSON. Answers come in the spelling of the last request, pushes in that of the last subscription.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from teg.domain.server import wire
from teg.simulator.thingsboard.payloads import BadPayload, BadRequestId, ConversionFailed

MAX_INT = 2**31 - 1


class Kind(Enum):
    TELEMETRY = auto()
    ATTRIBUTES = auto()
    ATTRIBUTE_REQUEST = auto()
    RPC_RESPONSE = auto()
    CLIENT_RPC = auto()
    CLAIM = auto()
    PACKAGE_CHUNK = auto()
    GATEWAY = auto()
    PROTOBUF = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Family:
    """One spelling. `*_filter` are what a client subscribes to; the others end where the id begins."""

    telemetry: str
    attributes: str
    attribute_request: str
    attribute_response: str
    rpc_request: str
    rpc_response: str

    def filters(self) -> tuple[str, ...]:
        answers = (self.attribute_response, self.rpc_request, self.rpc_response)
        return (self.attributes, *(prefix + "+" for prefix in answers))


def _prefix(template: str) -> str:
    return template.removesuffix("{id}")


V1 = Family(
    wire.TELEMETRY,
    wire.ATTRIBUTES,
    _prefix(wire.ATTRIBUTE_REQUEST),
    _prefix(wire.ATTRIBUTE_RESPONSE),
    _prefix(wire.RPC_REQUEST),
    _prefix(wire.RPC_RESPONSE),
)
V2 = Family("v2/t", "v2/a", "v2/a/req/", "v2/a/res/", "v2/r/req/", "v2/r/res/")
V2_JSON = Family("v2/t/j", "v2/a/j", "v2/a/req/j/", "v2/a/res/j/", "v2/r/req/j/", "v2/r/res/j/")
_V2_PROTO = Family("v2/t/p", "v2/a/p", "v2/a/req/p/", "v2/a/res/p/", "v2/r/req/p/", "v2/r/res/p/")
#: Longest prefixes first: `v2/a/req/j/` before `v2/a/req/`.
_FAMILIES = (V1, V2_JSON, _V2_PROTO, V2)

GATEWAY_TELEMETRY = wire.GATEWAY_TELEMETRY
CLAIM = "v1/devices/me/claim"
_CHUNK = re.compile(r"v2/(fw|sw)/request/(\d+)/chunk/(\d+)")
_CHUNK_FILTERS = {f"v2/{kind}/response/+/chunk/+": kind for kind in ("fw", "sw")}

#: Filter -> the spelling it chooses for pushes (None: it has no spelling).
FILTERS: dict[str, Family | None] = {
    **{name: family for family in _FAMILIES for name in family.filters()},
    **dict.fromkeys((*_CHUNK_FILTERS, wire.OTA_ERROR, "v2/sw/error", wire.PROVISION_RESPONSE)),
    # Granted to every device, be it a gateway or not.
    **dict.fromkeys(("v1/gateway/attributes", "v1/gateway/rpc", "v1/gateway/attributes/response")),
}
RPC_FILTERS = frozenset(family.rpc_request + "+" for family in _FAMILIES)
ATTRIBUTE_FILTERS = frozenset(family.attributes for family in _FAMILIES)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a publish goes; `id` is that of the request, `package` is "fw" or "sw"."""

    kind: Kind
    family: Family = V1
    id: int = 0
    chunk: int = 0
    package: str = ""


_EXACT = {CLAIM: Route(Kind.CLAIM)}
for _family in (V1, V2, V2_JSON):
    _EXACT[_family.telemetry] = Route(Kind.TELEMETRY, _family)
    _EXACT[_family.attributes] = Route(Kind.ATTRIBUTES, _family)
for _name in (_V2_PROTO.telemetry, _V2_PROTO.attributes):
    _EXACT[_name] = Route(Kind.PROTOBUF, _V2_PROTO)

_PREFIXES = [
    (prefix, kind, family)
    for family in _FAMILIES
    for prefix, kind in (
        (family.attribute_request, Kind.ATTRIBUTE_REQUEST),
        (family.rpc_response, Kind.RPC_RESPONSE),
        (family.rpc_request, Kind.CLIENT_RPC),
    )
]


def route(topic: str) -> Route:
    """Raise `BadRequestId` or `ConversionFailed` when the topic is known but its id is no number."""
    if found := _EXACT.get(topic):
        return found
    for prefix, kind, family in _PREFIXES:
        if topic.startswith(prefix):
            return _with_id(kind, family, topic.removeprefix(prefix))
    if match := _CHUNK.search(topic):
        request, chunk = (_int(match[index], ConversionFailed) for index in (2, 3))
        return Route(Kind.PACKAGE_CHUNK, V1, request, chunk, match[1])
    return Route(Kind.GATEWAY if topic.startswith("v1/gateway/") else Kind.UNKNOWN)


def _with_id(kind: Kind, family: Family, text: str) -> Route:
    """Of a client RPC the server does not expect a bad id; in the other topics it does."""
    error = ConversionFailed if kind is Kind.CLIENT_RPC else BadRequestId
    return Route(Kind.PROTOBUF if family is _V2_PROTO else kind, family, _int(text, error))


def _int(text: str, error: type[BadPayload]) -> int:
    """Java's Integer.parseInt."""
    if not re.fullmatch(r"[-+]?\d{1,11}", text) or not -MAX_INT - 1 <= int(text) <= MAX_INT:
        raise error(f"request id {text!r}")
    return int(text)


def chunk_response(package: str, request_id: int, chunk: int) -> str:
    return f"v2/{package}/response/{request_id}/chunk/{chunk}"


def chunk_filter(package: str) -> str:
    return f"v2/{package}/response/+/chunk/+"
