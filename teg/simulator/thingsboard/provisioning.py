"""Self-registration of devices: which keys are known, what is answered, and the session it happens in.

Source: ThingsBoard's DeviceProvisionServiceImpl and the provision part of MqttTransportHandler.
"""

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import orjson

from teg.domain.server.wire import PROVISION_REQUEST, PROVISION_RESPONSE
from teg.simulator.thingsboard import mqtt_codec as mqtt_wire
from teg.simulator.thingsboard.credentials import Credentials
from teg.simulator.thingsboard.faults import Trigger, never
from teg.simulator.thingsboard.mqtt_codec import V5, Connect, Packet, PublishPacket, SubscribePacket, UnsubscribePacket
from teg.simulator.thingsboard.payloads import BadPayload, parse_object

if TYPE_CHECKING:
    from teg.simulator.thingsboard.connection import Connection
    from teg.simulator.thingsboard.core import Core

#: create: new devices are made. check: only names that the operator entered before, each of them once.
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
    _keys: dict[str, tuple[str, Strategy]] = field(default_factory=dict)
    _entered: dict[str, bool] = field(default_factory=dict)

    def allow(self, key: str, secret: str, strategy: Strategy = "create") -> None:
        self._keys[key] = (secret, strategy)

    def disable(self, key: str) -> None:
        self._keys.pop(key, None)

    def enter(self, device_name: str) -> None:
        """Pre-provision a device for the strategy "check"."""
        self._entered[device_name] = False

    def answer(self, request: ProvisionRequest, core: "Core") -> dict[str, Any]:
        """Create the device and return its credentials, or return what went wrong."""
        self.requests.append(request)
        known = self._keys.get(request.key)
        if known is None or known[0] != request.secret:
            return dict(_NOT_FOUND)
        if self.fail.fires() or not self._may_create(request, known[1], core):
            return dict(_FAILURE)
        name = request.device_name or _random_text()
        if known[1] == "check":
            self._entered[name] = True
        credentials, value = _new_credentials(request)
        core.add_device(name, credentials)
        return {
            "credentialsValue": value,
            "credentialsType": request.credentials_type,
            "status": "SUCCESS",
        }

    def _may_create(self, request: ProvisionRequest, strategy: Strategy, core: "Core") -> bool:
        name = request.device_name
        if name is not None and (not isinstance(name, str) or not name.strip() or name in core.devices):
            return False
        return strategy == "create" or self._entered.get(name or "") is False


def _new_credentials(request: ProvisionRequest) -> tuple[Credentials | None, Any]:
    body = request.body
    if request.credentials_type == "ACCESS_TOKEN":
        token = str(body.get("token") or _random_text())
        return Credentials(token=token), token
    if request.credentials_type == "MQTT_BASIC":
        login = {"clientId": "clientId", "userName": "username", "password": "password"}
        value = {name: body.get(source) for name, source in login.items()}
        return Credentials(None, value["clientId"], value["userName"], value["password"]), value
    return None, str(body.get("hash"))


def _random_text() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(20))


class ProvisionSession:
    """A session of the user `provision`: it may ask for credentials and nothing else."""

    name = ""

    def __init__(self, core: "Core", connection: "Connection", connect: Connect) -> None:
        self._core = core
        self._connection = connection
        self._version = connect.version
        self._answered = 0
        self._granted = 1
        self._handlers: dict[int, Callable[[Any], None]] = {
            mqtt_wire.PUBLISH: self._on_publish,
            mqtt_wire.SUBSCRIBE: self._on_subscribe,
            mqtt_wire.UNSUBSCRIBE: self._on_unsubscribe,
            mqtt_wire.PINGREQ: lambda _packet: self._send(mqtt_wire.PINGRESP_PACKET),
            mqtt_wire.DISCONNECT: lambda _packet: connection.close("client disconnected"),
        }

    def handle(self, packet: Packet) -> None:
        handler = self._handlers.get(packet.kind)
        if handler is not None:
            handler(packet)

    def closed(self, _reason: str) -> None:
        """Nothing to clean up: the device that was created stays."""

    def _on_publish(self, packet: PublishPacket) -> None:
        try:
            if packet.topic != PROVISION_REQUEST:
                raise BadPayload(f"publish to {packet.topic} in a provisioning session")
            request = parse_request(packet.payload)
        except BadPayload as error:
            self._connection.close(f"provisioning: {error}", 0x99)
            return
        self._answer(packet, request)

    def _answer(self, packet: PublishPacket, request: ProvisionRequest) -> None:
        provisioning = self._core.provisioning
        if provisioning.close_instead.fires():
            self._connection.close("fault: provisioning closed", 0x80)
            return
        if packet.qos:
            self._send(mqtt_wire.puback(self._version, packet.mid))
        answer = provisioning.answer_with or orjson.dumps(provisioning.answer(request, self._core))
        if not provisioning.swallow_answer.fires():
            self._publish(answer)
        self._core.later(self._core.limits.provisioned_session_s, self._time_is_over)

    def _publish(self, answer: bytes) -> None:
        self._answered += 1
        self._send(mqtt_wire.publish(self._version, PROVISION_RESPONSE, answer, self._granted, self._answered))

    def _time_is_over(self) -> None:
        self._connection.close("provisioning session is over", 0x98)

    def _on_subscribe(self, packet: SubscribePacket) -> None:
        suback = mqtt_wire.suback(self._version, packet.mid, [self._grant(*item) for item in packet.filters])
        delay_s = self._core.faults.suback_delay_s
        if delay_s:
            self._core.later(delay_s, lambda: self._send(suback))
        else:
            self._send(suback)

    def _grant(self, name: str, qos: int) -> int:
        if name != PROVISION_RESPONSE:
            return 0x8F if self._version == V5 else 0x80
        self._granted = min(qos, 1)
        return self._granted

    def _on_unsubscribe(self, packet: UnsubscribePacket) -> None:
        self._send(mqtt_wire.unsuback(self._version, packet.mid, [0] * len(packet.filters)))

    def _send(self, packet: bytes) -> None:
        self._connection.send(packet)
