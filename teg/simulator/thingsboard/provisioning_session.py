"""The session of the user `provision`: it may ask for credentials and nothing else.

Source: the provision part of ThingsBoard's MqttTransportHandler.
"""

from collections.abc import Callable
from typing import Any

import orjson

from teg.domain.server.wire import PROVISION_REQUEST, PROVISION_RESPONSE
from teg.simulator.thingsboard import mqtt_codec
from teg.simulator.thingsboard.core import Connection, Core
from teg.simulator.thingsboard.mqtt_codec import V5, Connect, Packet, PublishPacket, SubscribePacket, UnsubscribePacket
from teg.simulator.thingsboard.payloads import BadPayload
from teg.simulator.thingsboard.provisioning import ProvisionRequest, parse_request


class ProvisionSession:
    """Answers requests until the server's time for a provisioned session is over."""

    name = ""

    def __init__(self, core: Core, connection: Connection, connect: Connect) -> None:
        self._core = core
        self._connection = connection
        self._version = connect.version
        self._answered = 0
        self._granted = 1
        self._handlers: dict[int, Callable[[Any], None]] = {
            mqtt_codec.PUBLISH: self._on_publish,
            mqtt_codec.SUBSCRIBE: self._on_subscribe,
            mqtt_codec.UNSUBSCRIBE: self._on_unsubscribe,
            mqtt_codec.PINGREQ: lambda _packet: self._send(mqtt_codec.PINGRESP_PACKET),
            mqtt_codec.DISCONNECT: lambda _packet: connection.close("client disconnected"),
        }

    def handle(self, packet: Packet) -> None:
        handler = self._handlers.get(packet.kind)
        if handler is not None:
            handler(packet)

    def closed(self, _reason: str) -> None:
        """Nothing to clean up: the device that was created stays."""

    def end(self, reason: str, code: int) -> None:
        self._connection.close(reason, code)

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
            self._send(mqtt_codec.puback(self._version, packet.mid))
        answer = provisioning.answer_with or orjson.dumps(provisioning.answer(request, self._core))
        if not provisioning.swallow_answer.fires():
            self._publish(answer)
        self._core.later(self._core.limits.provisioned_session_s, self._time_is_over)

    def _publish(self, answer: bytes) -> None:
        self._answered += 1
        self._send(mqtt_codec.publish(self._version, PROVISION_RESPONSE, answer, self._granted, self._answered))

    def _time_is_over(self) -> None:
        self._connection.close("provisioning session is over", 0x98)

    def _on_subscribe(self, packet: SubscribePacket) -> None:
        suback = mqtt_codec.suback(self._version, packet.mid, [self._grant(*item) for item in packet.filters])
        delay_s = self._core.faults.suback_delay_s
        if delay_s:
            self._core.later(delay_s, lambda: self._send(suback))
        else:
            self._send(suback)

    def _grant(self, name: str, qos: int) -> int:
        if name != PROVISION_RESPONSE or self._core.faults.refuse_subscription.fires():
            return 0x8F if self._version == V5 else 0x80
        self._granted = min(qos, 1)
        return self._granted

    def _on_unsubscribe(self, packet: UnsubscribePacket) -> None:
        self._send(mqtt_codec.unsuback(self._version, packet.mid, [0] * len(packet.filters)))

    def _send(self, packet: bytes) -> None:
        self._connection.send(packet)
