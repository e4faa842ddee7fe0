"""What a publish to each device topic does: telemetry, attributes, requests, RPC, claiming, packages.

A handler acknowledges the publish when the server has taken it, and answers after that. It raises what
makes the session close: `BadPayload` (`ConversionFailed`, `BadRequestId` among them), `RateLimited`, `PackageError`.
"""

import time
from functools import partial
from typing import Any, Protocol

import orjson

from teg.simulator.thingsboard import topics
from teg.simulator.thingsboard.alarm_rules import AlarmDefinition
from teg.simulator.thingsboard.attributes import has_empty_name, parse_request
from teg.simulator.thingsboard.claiming import parse_claim
from teg.simulator.thingsboard.core import Core
from teg.simulator.thingsboard.device_state import DeviceState
from teg.simulator.thingsboard.ota_packages import Downloads
from teg.simulator.thingsboard.payloads import (
    BadPayload,
    ConversionFailed,
    check_telemetry,
    count_points,
    parse_object,
    records_in,
)
from teg.simulator.thingsboard.topics import Kind, Route
from teg.simulator.thingsboard.traffic import Publish

UNKNOWN_TOPIC = 0x90


class RateLimited(Exception):  # noqa: N818
    """A token bucket of the device is empty, or too small for this publish."""


class Answering(Protocol):
    """The session through which an endpoint acknowledges and answers."""

    def acknowledge(self, publish: Publish, reason: int = 0) -> None: ...
    def send_answer(self, topic: str, payload: bytes) -> None: ...
    def send(self, topic: str, payload: bytes, name: str) -> None: ...


class Endpoints:
    """The endpoints of one session."""

    def __init__(self, core: Core, device: DeviceState, session: Answering) -> None:
        self._core = core
        self._device = device
        self._session = session
        self._downloads = Downloads()
        self._handlers = {
            Kind.TELEMETRY: self._telemetry,
            Kind.ATTRIBUTES: self._attributes,
            Kind.ATTRIBUTE_REQUEST: self._attribute_request,
            Kind.RPC_RESPONSE: self._rpc_response,
            Kind.CLIENT_RPC: self._client_rpc,
            Kind.CLAIM: self._claim,
            Kind.PACKAGE_CHUNK: self._package_chunk,
            Kind.GATEWAY: self._gateway,
            Kind.PROTOBUF: self._protobuf,
            Kind.UNKNOWN: self._unknown,
        }

    def handle(self, publish: Publish) -> None:
        route = topics.route(publish.topic)
        handler = self._handlers.get(route.kind)
        if handler is not None:
            handler(route, publish)

    def _telemetry(self, _route: Route, publish: Publish) -> None:
        """`[]` is taken but never acknowledged, since the acknowledgement follows the last element."""
        elements = check_telemetry(publish.payload)
        if self._device.limiter.counts_points:
            self._admit_points(count_points(elements))
        self._queue_telemetry(publish.payload, len(elements))
        if elements:
            self._session.acknowledge(publish)

    def _gateway(self, _route: Route, publish: Publish) -> None:
        """Telemetry for other devices, made when the name is new; of a device that is no gateway, and of the rest of
        the gateway API, nothing is acknowledged."""
        if not self._device.is_gateway or publish.topic != topics.GATEWAY_TELEMETRY:
            return
        for name, elements in parse_object(publish.payload).items():
            if not isinstance(elements, list):
                raise ConversionFailed(f"an array is wanted for {name!r}")
            payload = orjson.dumps(elements)
            self._admit_points(count_points(check_telemetry(payload)))
            device = self._core.devices.get(name) or self._core.add_device(name, None)
            self._queue_telemetry(payload, len(elements), device)
            if elements:
                self._session.acknowledge(publish)

    def _queue_telemetry(self, payload: bytes, elements: int, device: DeviceState | None = None) -> None:
        """Each element of an array is a message of its own: a crash may leave a part of them."""
        device, arrival_ms = device or self._device, time.time_ns() // 1_000_000
        device.telemetry.accept(payload, arrival_ms, elements)
        if self._core.faults.alter_payload is not None:
            payload = self._core.faults.alter_payload(payload)
        rules = self._core.alarms_of(device)
        if self._core.queue.is_immediate and not rules:
            device.telemetry.store(payload, arrival_ms)
            return
        for ts_ms, values in records_in(payload, arrival_ms):
            self._core.queue.put("telemetry", partial(_store_record, device, rules, ts_ms, values))

    def _attributes(self, _route: Route, publish: Publish) -> None:
        values = parse_object(publish.payload)
        self._admit_points(len(values))
        if not self._core.faults.drop_client_attributes:
            self._queue_attributes(publish.payload)
        self._session.acknowledge(publish)

    def _queue_attributes(self, payload: bytes) -> None:
        faults = self._core.faults
        payload = payload if faults.alter_payload is None else faults.alter_payload(payload)
        store = partial(self._device.attributes.merge_client, payload)
        if faults.attributes_overtake:
            store()
        else:
            self._core.queue.put("client attributes", store)

    def _attribute_request(self, route: Route, publish: Publish) -> None:
        client, shared = parse_request(publish.payload)
        self._admit_message()
        self._device.attribute_requests.append((route.id, publish.payload))
        self._session.acknowledge(publish)
        if route.id < 0 or has_empty_name(client, shared):
            return
        if self._core.faults.swallow_attribute_responses.fires(publish):
            return
        topic = f"{route.family.attribute_response}{route.id}"
        answer = orjson.dumps(self._device.attributes.answer(client, shared))
        if self._core.faults.stale_attribute_response.fires(publish):
            self._device.hold_answer(topic, answer)
        else:
            self._session.send_answer(topic, answer)

    def _rpc_response(self, route: Route, publish: Publish) -> None:
        self._admit_message()
        self._device.rpc.responded(route.id, publish.payload)
        self._session.acknowledge(publish)

    def _client_rpc(self, route: Route, publish: Publish) -> None:
        body = parse_object(publish.payload)
        method = body.get("method")
        if method is None or isinstance(method, dict | list):
            raise ConversionFailed("client RPC without method")
        self._admit_message()
        self._device.client_rpcs.append((route.id, str(method), body.get("params")))
        self._session.acknowledge(publish)
        topic = f"{route.family.rpc_response}{route.id}"
        if method == "getSessionLimits" and route.family is topics.V1:
            self._session.send_answer(topic, orjson.dumps(self._core.limits.session_limits()))
        else:
            self._answer_client_rpc(topic, str(method), body.get("params"))

    def _answer_client_rpc(self, topic: str, method: str, params: Any) -> None:
        """Without a rule chain that answers, the client gets the timeout."""
        if self._device.answer_client_rpc is not None:
            answer = orjson.dumps(self._device.answer_client_rpc(method, params))
            self._session.send_answer(topic, answer)
            return
        timeout_s = self._core.limits.client_rpc_timeout_s
        self._core.later(timeout_s, lambda: self._session.send_answer(topic, b'{"error":"timeout"}'))

    def _claim(self, _route: Route, publish: Publish) -> None:
        claim = parse_claim(publish.payload)
        self._admit_message()
        self._device.claims.append(publish.payload)
        if not self._core.faults.forget_claims:
            self._device.claim = claim
        self._session.acknowledge(publish)

    def _package_chunk(self, route: Route, publish: Publish) -> None:
        """After the first chunk of a request id, its requests are not rate-limited."""
        if not self._downloads.is_started(route.package, route.id):
            self._admit_message()
        package = self._device.packages.get(route.package)
        data = self._downloads.chunk(route.package, route.id, route.chunk, publish.payload, package)
        self._session.acknowledge(publish)
        alter = self._core.faults.ota_chunk
        answer = data if alter is None else alter(route.chunk, data)
        if answer is not None:
            topic = topics.chunk_response(route.package, route.id, route.chunk)
            self._session.send(topic, answer, topics.chunk_filter(route.package))

    def _protobuf(self, _route: Route, _publish: Publish) -> None:
        raise BadPayload("protobuf topics are not spoken here")

    def _unknown(self, _route: Route, publish: Publish) -> None:
        """Acknowledged and dropped; only MQTT 5 tells the client."""
        self._session.acknowledge(publish, UNKNOWN_TOPIC)

    def _admit_message(self) -> None:
        if not self._device.limiter.admits_message(time.monotonic()):
            raise RateLimited("messages")

    def _admit_points(self, points: int) -> None:
        if not self._device.limiter.admits_points(points, time.monotonic()):
            raise RateLimited(f"{points} data points")


def _store_record(device: DeviceState, rules: tuple[AlarmDefinition, ...], ts_ms: int, values: dict[str, Any]) -> None:
    device.telemetry.store_record(ts_ms, values)
    if rules:
        device.alarms.process(rules, values)
