"""Self-registration of devices: which keys are known, and what is answered.

Source: ThingsBoard's DeviceProvisionServiceImpl.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from teg.simulator.thingsboard.credentials import Credentials, random_text
from teg.simulator.thingsboard.faults import Trigger, never
from teg.simulator.thingsboard.payloads import BadPayload, parse_object


class DeviceRegistry(Protocol):
    """Where devices are created."""

    @property
    def devices(self) -> Container[str]: ...
    def entered(self, name: str, fields: Mapping[str, Any]) -> Credentials | None:
        """The credentials of a device of this name and of the profile with these fields; None without one."""
        ...

    def provision(self, name: str, credentials: Credentials | None, fields: Mapping[str, Any]) -> None:
        """Create the device, or give the one of this name its credentials; `fields` come from its profile."""
        ...


#: create: new devices are made. check: only devices of the profile that the operator made before; they keep their
#: credentials, and may ask again.
Strategy = Literal["create", "check"]

_NOT_FOUND = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
_FAILURE = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}
_TYPES = ("ACCESS_TOKEN", "MQTT_BASIC", "X509_CERTIFICATE")


@dataclass(frozen=True, slots=True)
class ProvisionRequest:
    key: str
    secret: str
    device_name: str | None
    credentials_type: str
    body: dict[str, Any]


def parse_request(payload: bytes) -> ProvisionRequest:
    """Raise `BadPayload` for what closes the session without an answer."""
    body = parse_object(payload)
    key, secret = body.get("provisionDeviceKey"), body.get("provisionDeviceSecret")
    if not isinstance(key, str) or not isinstance(secret, str):
        raise BadPayload("provisionDeviceKey and provisionDeviceSecret are both needed")
    kind = body.get("credentialsType", "ACCESS_TOKEN")
    if kind not in _TYPES:
        raise BadPayload(f"unknown credentialsType {kind!r}")
    return ProvisionRequest(key, secret, body.get("deviceName"), kind, body)


@dataclass(frozen=True, slots=True)
class _Key:
    secret: str
    strategy: Strategy
    fields: Mapping[str, Any]


@dataclass
class Provisioning:
    """The operator's side: allow keys, enter names; and the faults of the answers."""

    #: No answer at all (the request is still PUBACKed and carried out).
    swallow_answer: Trigger = field(default_factory=never)
    #: Close the session instead of answering.
    close_instead: Trigger = field(default_factory=never)
    #: Answer with this text, whatever was asked, and create nothing.
    answer_with: bytes | None = None
    #: Every answer is FAILURE (a limit of the tenant, an exception).
    fail: Trigger = field(default_factory=never)
    requests: list[ProvisionRequest] = field(default_factory=list)
    _keys: dict[str, _Key] = field(default_factory=dict)
    _entered: set[str] = field(default_factory=set)

    def allow(
        self, key: str, secret: str, strategy: Strategy = "create", fields: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """`fields` are what a device gets from the profile that the key belongs to."""
        self._keys[key] = _Key(secret, strategy, fields)

    def disable(self, key: str) -> None:
        self._keys.pop(key, None)

    def enter(self, device_name: str) -> None:
        """Pre-provision a device for the strategy "check" that gets its credentials when it asks."""
        self._entered.add(device_name)

    def answer(self, request: ProvisionRequest, registry: DeviceRegistry) -> dict[str, Any]:
        """Create the device and return its credentials, or return what went wrong."""
        self.requests.append(request)
        known = self._keys.get(request.key)
        if known is None or known.secret != request.secret:
            return dict(_NOT_FOUND)
        if self.fail.fires():
            return dict(_FAILURE)
        if known.strategy == "check" and (found := registry.entered(request.device_name or "", known.fields)):
            return _success(*_as_answered(found))
        if not self._may_create(request, known.strategy, registry):
            return dict(_FAILURE)
        credentials, value = _new_credentials(request)
        registry.provision(request.device_name or random_text(), credentials, known.fields)
        return _success(request.credentials_type, value)

    def _may_create(self, request: ProvisionRequest, strategy: Strategy, registry: DeviceRegistry) -> bool:
        name = request.device_name
        if name is not None and (not isinstance(name, str) or not name.strip()):
            return False
        if name in registry.devices:
            return False
        return strategy == "create" or name in self._entered


def _success(kind: str, value: Any) -> dict[str, Any]:
    return {"credentialsValue": value, "credentialsType": kind, "status": "SUCCESS"}


def _as_answered(known: Credentials) -> tuple[str, Any]:
    if known.token is not None:
        return "ACCESS_TOKEN", known.token
    if known.certificate is not None:
        return "X509_CERTIFICATE", known.certificate
    return "MQTT_BASIC", {"clientId": known.client_id, "userName": known.user_name, "password": known.password}


def _new_credentials(request: ProvisionRequest) -> tuple[Credentials | None, Any]:
    body = request.body
    if request.credentials_type == "ACCESS_TOKEN":
        token = str(body.get("token") or random_text())
        return Credentials(token=token), token
    if request.credentials_type == "MQTT_BASIC":
        login = {"clientId": "clientId", "userName": "username", "password": "password"}
        value = {name: body.get(source) for name, source in login.items()}
        return Credentials(None, value["clientId"], value["userName"], value["password"]), value
    pem = str(body.get("hash"))
    return Credentials(certificate=pem.strip()) if "BEGIN CERTIFICATE" in pem else None, pem
