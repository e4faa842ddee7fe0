"""The live session of one device: subscriptions, acknowledgements and everything sent down to the client."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from teg.domain.server.wire import OTA_ERROR
from teg.simulator.thingsboard import mqtt_codec, topics
from teg.simulator.thingsboard.core import Connection, Core
from teg.simulator.thingsboard.credentials import ACCEPTED
from teg.simulator.thingsboard.device_state import DeviceState
from teg.simulator.thingsboard.endpoints import Endpoints, RateLimited
from teg.simulator.thingsboard.mqtt_codec import (
    V5,
    AckPacket,
    BarePacket,
    Connect,
    Packet,
    PublishPacket,
    SubscribePacket,
    UnsubscribePacket,
)
from teg.simulator.thingsboard.ota_packages import PackageError
from teg.simulator.thingsboard.payloads import BadPayload, ConversionFailed
from teg.simulator.thingsboard.reordering import Reversal
from teg.simulator.thingsboard.rpc import RpcCall
from teg.simulator.thingsboard.traffic import Publish, SessionRecord


@dataclass(frozen=True, slots=True)
class Downlink:
    """`sent` runs with the packet id and QoS when the message has been written."""

    topic: str
    payload: bytes
    qos: int
    sent: Callable[[int, int], None] | None = None


class DeviceSession:
    def __init__(self, core: Core, device: DeviceState, connection: Connection, connect: Connect) -> None:
        self._core = core
        self._device = device
        self._connection = connection
        self._record = SessionRecord(
            connection.number, connect.client_id, connect.version, connect.clean, connect.keep_alive_s
        )
        self._version = connect.version
        self._endpoints = Endpoints(core, device, self)
        self._push_family: topics.Family | None = None
        self._rpc_family: topics.Family | None = None
        self._downlinks = 0
        self._awaiting_ack: dict[int, int] = {}
        self._late_pubacks = Reversal(core.later)
        self._swapped = Reversal(core.later)
        self._handlers: dict[int, Callable[[Any], None]] = {
            mqtt_codec.PUBLISH: self._on_publish,
            mqtt_codec.PUBACK: self._on_puback,
            mqtt_codec.SUBSCRIBE: self._on_subscribe,
            mqtt_codec.UNSUBSCRIBE: self._on_unsubscribe,
            mqtt_codec.PINGREQ: self._on_ping,
            mqtt_codec.DISCONNECT: self._on_disconnect,
            mqtt_codec.CONNECT: self._on_second_connect,
        }

    @property
    def record(self) -> SessionRecord:
        return self._record

    @property
    def active_s(self) -> float:
        return self._connection.active_s

    @property
    def name(self) -> str:
        return self._device.name

    def handle(self, packet: Packet) -> None:
        handler = self._handlers.get(packet.kind)
        if handler is not None:
            handler(packet)

    def closed(self, reason: str) -> None:
        """The connection is gone or going; nothing of the session is kept. Harmless twice."""
        self._record.close(reason)
        self._device.rpc.unsubscribed(self)
        self._device.detach(self)

    def end(self, reason: str, code: int) -> None:
        """Close from the server's side; `code` is the DISCONNECT reason that only MQTT 5 gets to see."""
        self.closed(reason)
        self._connection.close(reason, code)

    def watch_activity(self) -> None:
        """The keep-alive of the client is not enforced, only the server's own inactivity limit."""
        if not self._record.open:
            return
        left_s = self._connection.active_s + self._core.limits.inactivity_timeout_s - time.monotonic()
        if left_s > 0:
            self._core.loop.call_later(left_s, self.watch_activity)
        else:
            self.end("inactivity", 0xA0)

    # --- publishes

    def _on_publish(self, packet: PublishPacket) -> None:
        publish = Publish(
            packet.topic,
            packet.qos,
            packet.dup,
            packet.mid,
            packet.payload,
            time.monotonic(),
            self._record.number,
            packet.retain,
        )
        self._device.publishes.append(publish)
        self._device.publish_count += 1
        if publish.qos:
            self._record.arrived()
        if not self._strike(publish):
            self._process(publish)

    def _strike(self, publish: Publish) -> bool:
        faults = self._core.faults
        if faults.reset.fires(publish):
            self.closed("fault: reset")
            self._connection.reset("fault: reset")
            return True
        if faults.poison.fires(publish):
            self.end("fault: poison", 0x99)
            return True
        return False

    def _process(self, publish: Publish) -> None:
        try:
            self._endpoints.handle(publish)
        except ConversionFailed as error:
            self.end(f"bad content: {error}", 0x8B)
        except BadPayload as error:
            self._refuse(publish, error)
        except RateLimited as error:
            self.end(f"rate limit: {error}", 0x83)
        except PackageError as error:
            self._package_error(error)

    def _refuse(self, publish: Publish, error: BadPayload) -> None:
        """MQTT 5 can say what is wrong and goes on; before that, closing is the only answer."""
        if publish.qos and (self._version == V5 or self._core.limits.ack_bad_payloads):
            self.acknowledge(publish, 0x99)
        else:
            self.end(f"bad payload on {publish.topic}: {error}", 0x99)

    def _package_error(self, error: PackageError) -> None:
        if error.text:
            self.send(OTA_ERROR, error.text.encode(), OTA_ERROR)
        self.end(f"package download: {error}", 0x83)

    def acknowledge(self, publish: Publish, reason: int = 0) -> None:
        """PUBACK for QoS 1 and, as the real server does, for QoS 2; at once unless a fault is set."""
        faults = self._core.faults
        if not publish.qos:
            return
        if faults.close_before_puback.fires(publish):
            self.end("fault: closed before PUBACK", 0x80)
        elif not faults.drop_puback.fires(publish):
            self._send_puback(publish, reason)

    def _send_puback(self, publish: Publish, reason: int) -> None:
        faults = self._core.faults
        if faults.puback_out_of_order > 1:
            size, wait_s = faults.puback_out_of_order, faults.collect_s
            self._late_pubacks.add(lambda: self._puback(publish, reason), size, wait_s)
        elif faults.puback_delay_s:
            self._core.later(faults.puback_delay_s, lambda: self._puback(publish, reason))
        else:
            self._puback(publish, reason)

    def _puback(self, publish: Publish, reason: int) -> None:
        """Booked before it is written: the client may act on it before this thread goes on."""
        if self._core.faults.hide_reasons:
            reason = 0
        if self._connection.can_send:
            publish.acked = True
            self._record.acknowledged()
            self._connection.send(mqtt_codec.puback(self._version, publish.mid, reason))

    # --- subscriptions

    def _on_subscribe(self, packet: SubscribePacket) -> None:
        codes = [self._grant(name, qos) for name, qos in packet.filters]
        granted = [name for (name, _), code in zip(packet.filters, codes, strict=True) if code < 0x80]
        faults = self._core.faults
        if faults.rpc_before_suback:
            self._register(granted)
        suback = mqtt_codec.suback(self._version, packet.mid, codes)
        if faults.suback_delay_s:
            self._core.later(faults.suback_delay_s, lambda: self._send_quietly(suback))
        else:
            self._connection.send(suback)
        if not faults.rpc_before_suback:
            self._register(granted)

    def _send_quietly(self, packet: bytes) -> None:
        self._connection.send(packet)

    def _grant(self, name: str, qos: int) -> int:
        """Exact strings only, the plus sign is part of them."""
        unwanted = Downlink(name, b"", qos)
        if name not in topics.FILTERS or self._core.faults.refuse_subscription.fires(unwanted):
            self._record.refused_filters.append(name)
            return 0x8F if self._version == V5 else 0x80
        self._record.subscriptions[name] = min(qos, 1)
        return min(qos, 1)

    def _register(self, granted: list[str]) -> None:
        for name in granted:
            if name in topics.RPC_FILTERS and self._registers(name):
                self._rpc_family = topics.FILTERS[name]
                self._device.rpc.subscribed(self)
            elif name in topics.ATTRIBUTE_FILTERS and self._registers(name):
                self._push_family = topics.FILTERS[name]

    def _registers(self, name: str) -> bool:
        """False when the SUBACK was a lie: the rate limit was hit, or a fault is set."""
        lost = self._core.faults.lose_subscription.fires(Downlink(name, b"", 0))
        return not lost and self._device.limiter.admits_message(time.monotonic())

    def _on_unsubscribe(self, packet: UnsubscribePacket) -> None:
        codes = [self._forget(name) for name in packet.filters]
        self._connection.send(mqtt_codec.unsuback(self._version, packet.mid, codes))

    def _forget(self, name: str) -> int:
        if name not in topics.FILTERS:
            return 0x8F
        known = self._record.subscriptions.pop(name, None) is not None
        if name in topics.RPC_FILTERS:
            self._device.rpc.unsubscribed(self)
        elif name in topics.ATTRIBUTE_FILTERS:
            self._push_family = None
        return 0x00 if known else 0x11

    # --- downlinks

    def push(self, values: dict[str, Any]) -> None:
        """Shared attributes that changed, or `{"deleted": [...]}`; nothing without a subscription."""
        if self._push_family is not None:
            name = self._push_family.attributes
            self.send(name, orjson.dumps(values), name)

    def send_rpc(self, call: RpcCall) -> None:
        if self._rpc_family is None:
            return
        topic = f"{self._rpc_family.rpc_request}{call.id}"
        copies = 2 if self._core.faults.duplicate_rpc.fires(Downlink(topic, call.request, 0)) else 1
        for _ in range(copies):
            self._send_call(call, topic, self._rpc_family.rpc_request + "+")

    def _send_call(self, call: RpcCall, topic: str, name: str) -> None:
        def sent(number: int, qos: int) -> None:
            self._await_delivery(call, number, qos)

        self.send(topic, call.request, name, sent)

    def _await_delivery(self, call: RpcCall, number: int, qos: int) -> None:
        if qos == 0:
            self._device.rpc.delivered(call.id)
            return
        self._awaiting_ack[number] = call.id
        window_s = min(self._core.limits.rpc_delivery_timeout_s, call.timeout_s)
        self._core.later(window_s, lambda: self._delivery_timeout(number))

    def _delivery_timeout(self, number: int) -> None:
        call_id = self._awaiting_ack.pop(number, None)
        if call_id is not None:
            self._device.rpc.not_delivered(call_id)

    def _on_puback(self, packet: AckPacket) -> None:
        call_id = self._awaiting_ack.pop(packet.mid, None)
        if call_id is not None:
            self._device.rpc.delivered(call_id)

    def send_answer(self, topic: str, payload: bytes) -> None:
        """A response; it goes out whether or not the client subscribed to it."""
        self.send(topic, payload, topic.rpartition("/")[0] + "/+")

    def send(self, topic: str, payload: bytes, name: str, sent: Callable[[int, int], None] | None = None) -> None:
        """QoS of the subscription `name`, 1 without one."""
        downlink = Downlink(topic, payload, self._record.subscriptions.get(name, 1), sent)
        faults = self._core.faults
        if faults.drop_downlinks.fires(downlink):
            return
        if self._swapped.holding or faults.reorder_downlinks.fires(downlink):
            self._swapped.add(lambda: self._write(downlink), 2, faults.collect_s)
        else:
            self._write(downlink)

    def _write(self, downlink: Downlink) -> None:
        """Packet ids count up from 1; over 65,535 the id on the wire wraps and acks stop matching."""
        self._downlinks += 1
        packet = mqtt_codec.publish(self._version, downlink.topic, downlink.payload, downlink.qos, self._downlinks)
        written = self._connection.send(packet)
        if written and downlink.sent is not None:
            downlink.sent(self._downlinks, downlink.qos)

    # --- the rest

    def _on_ping(self, _packet: BarePacket) -> None:
        self._record.pings += 1
        if not self._core.faults.drop_pingresp:
            self._connection.send(mqtt_codec.PINGRESP_PACKET)

    def _on_disconnect(self, _packet: BarePacket) -> None:
        self._record.disconnected = True
        self._record.packets_after_disconnect = self._connection.has_unread_packets
        self.closed("client disconnected")
        self._connection.close("client disconnected")

    def _on_second_connect(self, packet: Connect) -> None:
        """Accepted once more, whatever its login; nothing is closed and nothing changes."""
        self._connection.send(mqtt_codec.connack(self._version, ACCEPTED, not packet.clean))
