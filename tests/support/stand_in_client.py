"""Two independent clients for the stand-in's tests: paho-mqtt, and a bare socket for hostile bytes."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

PATIENCE_S = 10.0
RPC = "v1/devices/me/rpc/request/+"
ATTRIBUTES = "v1/devices/me/attributes"
RESPONSES = "v1/devices/me/attributes/response/+"
TELEMETRY = "v1/devices/me/telemetry"


class PahoDevice:
    """A device built on paho-mqtt that never reconnects by itself and remembers all that comes in."""

    def __init__(
        self,
        user_name: str | None = None,
        password: str | None = None,
        client_id: str = "",
        version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
        ca_file: str | None = None,
        clean: bool = True,
        tls: bool = False,
    ) -> None:
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if version == MQTTProtocolVersion.MQTTv5 else clean,
            protocol=version,
            reconnect_on_failure=False,
        )
        self.client.max_inflight_messages_set(1000)
        if user_name is not None or password is not None:
            self.client.username_pw_set(user_name, password)
        if ca_file or tls:
            self.client.tls_set(ca_file)
        self.patience_s = PATIENCE_S
        self.changed = threading.Condition()
        self.connacks: list[tuple[int, bool]] = []
        self.messages: list[tuple[str, bytes, int]] = []
        self.acked: list[int] = []
        self.ack_codes: dict[int, int] = {}
        self.granted: dict[int, list[int]] = {}
        self.disconnects: list[tuple[int, bool]] = []
        self.answer: Callable[[str, bytes], bytes | None] = lambda _topic, _payload: None
        self._hook_up()

    def _hook_up(self) -> None:
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.on_publish = self._on_publish
        self.client.on_subscribe = self._on_subscribe
        self.client.on_disconnect = self._on_disconnect

    def connect(self, host: str, port: int) -> "PahoDevice":
        self.client.connect(host, port, keepalive=60)
        self.client.loop_start()
        return self

    def opened(self, host: str, port: int) -> "PahoDevice":
        """Connect and wait for CONNACK 0."""
        self.connect(host, port)
        self.wait(lambda: self.connacks, "CONNACK")
        assert self.connacks[-1][0] == 0, self.connacks
        return self

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def subscribe(self, *filters: str, qos: int = 1) -> list[int]:
        """Return the SUBACK codes, in MQTT 5 numbers as paho gives them."""
        _, mid = self.client.subscribe([(name, qos) for name in filters])
        assert mid is not None
        self.wait(lambda: mid in self.granted, "SUBACK")
        return self.granted[mid]

    def send(self, topic: str, payload: bytes | str, qos: int = 1) -> int:
        """Publish without waiting; return the packet id."""
        return self.client.publish(topic, payload, qos).mid

    def publish(self, topic: str, payload: bytes | str, qos: int = 1) -> int:
        """Publish, wait for the acknowledgement and return its reason code."""
        mid = self.send(topic, payload, qos)
        self.wait(lambda: mid in self.ack_codes, f"PUBACK for {payload[:60]!r} on {topic}")
        return self.ack_codes[mid]

    def on_topic(self, prefix: str) -> list[bytes]:
        return [payload for topic, payload, _ in self.messages if topic.startswith(prefix)]

    def wait(self, predicate: Callable[[], Any], what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(predicate, self.patience_s), f"never came: {what}"

    def wait_message(self, prefix: str, count: int = 1) -> list[bytes]:
        self.wait(lambda: len(self.on_topic(prefix)) >= count, f"{count} messages on {prefix}")
        return self.on_topic(prefix)

    def wait_closed(self) -> int:
        """Wait until the server has closed the connection; return paho's reason code."""
        self.wait(lambda: self.disconnects, "the end of the connection")
        return self.disconnects[-1][0]

    def _on_connect(self, _c: Any, _u: Any, flags: Any, reason: Any, _p: Any) -> None:
        with self.changed:
            self.connacks.append((reason.value, flags.session_present))
            self.changed.notify_all()

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        payload = bytes(message.payload)
        response = self.answer(message.topic, payload)
        if response is not None:
            self.client.publish(message.topic.replace("request", "response"), response, 1)
        with self.changed:
            self.messages.append((message.topic, payload, message.qos))
            self.changed.notify_all()

    def _on_publish(self, _c: Any, _u: Any, mid: int, reason: Any, _p: Any) -> None:
        with self.changed:
            self.acked.append(mid)
            self.ack_codes[mid] = reason.value
            self.changed.notify_all()

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, reasons: list[Any], _p: Any) -> None:
        with self.changed:
            self.granted[mid] = [reason.value for reason in reasons]
            self.changed.notify_all()

    def _on_disconnect(self, _c: Any, _u: Any, flags: Any, reason: Any, _p: Any) -> None:
        with self.changed:
            self.disconnects.append((reason.value, flags.is_disconnect_packet_from_server))
            self.changed.notify_all()


class RawSocket:
    """Bytes in, bytes out, and no opinion about them."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        plain = socket.create_connection((host, port), patience_s)
        self.socket = plain if tls is None else tls.wrap_socket(plain, server_hostname=host)
        self.socket.settimeout(patience_s)

    def __enter__(self) -> "RawSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *packets: bytes) -> "RawSocket":
        self.socket.sendall(b"".join(packets))
        return self

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only when the server closed."""
        received = b""
        while len(received) < size and (part := self.socket.recv(size - len(received))):
            received += part
        return received

    def packet(self) -> bytes:
        """One whole packet with a remaining length of one byte, empty when the server closed."""
        head = self.take(2)
        return head + self.take(head[1]) if len(head) == 2 else head

    def rest(self) -> bytes:
        """Everything until the server closes, in whichever way."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := self.socket.recv(65_536):
                received += part
        return received

    def rest_after(self, *packets: bytes) -> bytes:
        """What came until the server closed, which it may do while we still send."""
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            self.send(*packets)
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            return self.rest()
        return b""

    def ends_with_reset(self) -> bool:
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionResetError:
            return True
        return False

    def silent_for(self, seconds: float) -> bool:
        """Nothing arrives for so long. Only for what must never come."""
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(self._patience_s)


def packet(first: int, body: bytes) -> bytes:
    length, size = len(body), b""
    while True:
        length, byte = length >> 7, length & 0x7F
        size += bytes((byte | (0x80 if length else 0),))
        if not length:
            return bytes((first,)) + size + body


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def connect_packet(
    token: str | None = "T1",
    client_id: str = "",
    name: str = "MQTT",
    level: int = 4,
    flags: int = 0x02,
    password: str | None = None,
) -> bytes:
    user = b"" if token is None else text(token)
    properties = b"\x00" if level == 5 else b""
    flags |= (0 if token is None else 0x80) | (0 if password is None else 0x40)
    login = user + (b"" if password is None else text(password))
    return packet(0x10, text(name) + bytes((level, flags)) + b"\x00\x3c" + properties + text(client_id) + login)


def publish_packet(topic: str, payload: bytes, mid: int = 1, qos: int = 1, dup: bool = False) -> bytes:
    packet_id = mid.to_bytes(2, "big") if qos else b""
    return packet(0x30 | dup << 3 | qos << 1, text(topic) + packet_id + payload)


def subscribe_packet(mid: int, *filters: tuple[str, int]) -> bytes:
    return packet(0x82, mid.to_bytes(2, "big") + b"".join(text(name) + bytes((qos,)) for name, qos in filters))


@contextlib.contextmanager
def logged_in(host: str, port: int, token: str = "T1") -> Iterator[RawSocket]:
    """A raw socket after CONNACK 0."""
    raw = RawSocket(host, port)
    try:
        raw.send(connect_packet(token))
        assert raw.packet() == b"\x20\x02\x00\x00"
        yield raw
    finally:
        raw.socket.close()


def eventually(predicate: Callable[[], Any], what: str = "the condition") -> None:
    """Poll something that nobody announces."""
    deadline = time.monotonic() + PATIENCE_S
    while not predicate():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.002)
