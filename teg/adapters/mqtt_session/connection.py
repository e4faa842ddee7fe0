"""One MQTT connection, on a paho client of its own: QoS 1 only, SUBACK checked, no more than 20 unacknowledged."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol, runtime_checkable

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from teg.adapters.mqtt_session.server import Server
from teg.adapters.mqtt_session.tcp_progress import TcpProgress, no_delay
from teg.adapters.mqtt_session.topic_aliases import TopicAliases
from teg.adapters.mqtt_session.wire_bytes import WireBytes
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.liveness import Liveness, Pulse
from teg.domain.server.connection_faults import CLOSED, CLOSED_PLAIN, explained
from teg.domain.server.login import Login
from teg.domain.server.reconnect import CONNACK_NUMBERS, MQTT5_NUMBERS, UNKNOWN_VERSION, Ended
from teg.domain.server.wire import MAX_UNACKNOWLEDGED, REPEATED_TOPICS, SUBSCRIPTIONS

logger = logging.getLogger("gateway.session")

KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 10.0
SUBACK_TIMEOUT_S = 10.0

#: MQTT 5's reason to end a session: another one was made for the same device.
TAKEN_OVER = 0x8E

Done = Callable[[bool], None]


@runtime_checkable
class TellsTurns(Protocol):
    """A client that calls this on its network thread whenever that has gone round."""

    on_turn: Callable[[], None]


#: Messages kept from before the SUBACK; the server re-sends pending calls then, and nobody has hundreds.
MAX_HELD = 200


class Connection:
    """One connection from TCP to its end."""

    def __init__(
        self,
        server: Server,
        token: str | Login,
        on_message: Callable[[str, bytes], None],
        on_established: Callable[[], None],
        keepalive_s: int,
        subscriptions: Sequence[str] = SUBSCRIPTIONS,
        liveness: Liveness | None = None,
        version: int = MQTTv311,
        count_bytes: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._version = version
        self._liveness = liveness or Liveness()
        self.usable = False
        self._subscriptions = subscriptions
        self._server = server
        self._on_message = on_message
        self._on_established = on_established
        self._keepalive_s = keepalive_s
        self._waiting: dict[int, Done] = {}
        self._early: set[int] = set()
        self._asked: dict[str, tuple[bytes, SimpleQueue[bytes | None]]] = {}
        self._answers: dict[str, SimpleQueue[bytes | None]] = {}
        self._subacks: dict[int, SimpleQueue[list[ReasonCode]]] = {}
        self._window = threading.BoundedSemaphore(MAX_UNACKNOWLEDGED)
        self._answered = threading.Event()
        self._over = threading.Event()
        self._refusal: int | None = None
        self._reason = ""
        self.closed_by_peer = self._taken_over = False
        self._established_s: float | None = None
        self._unacknowledged = 0
        #: Requests that came before the SUBACK, when they could not be answered yet; None from then on.
        self._held: list[tuple[str, bytes]] | None = []
        self._held_lock = threading.Lock()
        self._aliases = TopicAliases((), 0)
        self._login = Login.of(token)
        self._client = self._make_client(self._login)
        self._tcp = TcpProgress(self._client.socket)
        self._wire = WireBytes(self._client.socket, count_bytes)
        self._client.on_socket_close = lambda _, __, sock: self._wire.look(sock)

    def _make_client(self, login: Login) -> Client:
        client = self._server.client(
            CallbackAPIVersion.VERSION2,
            login.client_id,
            protocol=MQTTProtocolVersion(self._version),
            reconnect_on_failure=False,
        )
        client.username_pw_set(login.user, login.password)
        if self._server.tls is not None:
            client.tls_set_context(self._server.tls)
        client.suppress_exceptions = True  # a bug in a callback must not end the network thread unseen
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(MAX_UNACKNOWLEDGED)
        client.on_socket_open = no_delay
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_paho_message
        client.on_disconnect = self._on_disconnect
        return client

    # --- the connecting thread -----------------------------------------------------------------------------

    def run(self, stopping: threading.Event) -> Ended:
        try:
            return self._run(stopping)
        finally:
            # paho would leave this to the garbage collector: six file descriptors an attempt, for hours.
            self._client._reset_sockets()

    def _run(self, stopping: threading.Event) -> Ended:
        try:
            self._client.connect(self._server.host, self._server.port, self._keepalive_s)
        except (OSError, ValueError, Unavailable) as error:  # ValueError: host names that cannot be encoded
            return Ended(False, False, f"{self._server.host}:{self._server.port}: {explained(str(error))}")
        with self._network_thread():
            self._establish(stopping)
            while not self._over.wait(5.0):
                self._liveness.progress()
                self.count_bytes()
                if stopping.is_set():
                    self.end("the gateway stops")
        self._fail_waiting()
        return self._ended()

    @contextmanager
    def _network_thread(self) -> Iterator[None]:
        """paho's own; looked after from its first turn to the end of the connection."""
        pulses: list[Pulse] = []

        def turned() -> None:
            if not pulses:
                pulses.append(self._liveness.watch("the network thread"))
            pulses[0].note("serves the connection")

        if isinstance(self._client, TellsTurns):
            self._client.on_turn = turned
        self._client.loop_start()
        try:
            yield
        finally:
            self._client.loop_stop()
            for pulse in pulses:
                self._liveness.forget(pulse)

    def _establish(self, stopping: threading.Event) -> None:
        """Wait for CONNACK, subscribe, wait for the SUBACK; then the session is ours to use."""
        while not self._answered.wait(0.5):
            if self._over.is_set() or stopping.is_set():
                return
        if self._over.is_set():
            return
        try:
            if self._subscriptions:
                self._subscribe([(topic_filter, 1) for topic_filter in self._subscriptions])
        except Refused as reason:
            logger.error("%s; remote control or attribute updates will not work on this connection", reason)
        except Unavailable as reason:
            if self._over.is_set():
                return
            logger.warning("%s; going on without it", reason)
        self._established_s = time.monotonic()
        self.usable = True
        self._on_established()
        self._release_held()

    def _release_held(self) -> None:
        with self._held_lock:
            held, self._held = self._held or [], None
        for topic, payload in held:
            self._on_message(topic, payload)

    @property
    def answered(self) -> bool:
        """A CONNACK came, and it does not refuse the version of MQTT."""
        return self._answered.is_set() and not self.refuses_version

    @property
    def refuses_version(self) -> bool:
        return self._refusal == UNKNOWN_VERSION

    @property
    def closed_unanswered(self) -> bool:
        """The way of old servers to say that they do not know the version."""
        return not self.answered and (self.closed_by_peer or self.refuses_version)

    def end(self, reason: str) -> None:
        self._reason = self._reason or reason
        self.usable = False
        with suppress(OSError):  # it may end by itself at the same moment; paho then writes to a closed socket
            self._client.disconnect()
        self._over.set()

    def count_bytes(self) -> None:
        """Hand on what went over the wire since the last time."""
        self._wire.look()

    def stalled_s(self) -> float:
        return self._tcp.stalled_s()

    def progress(self) -> tuple[int, int]:
        return self._tcp.progress()

    def _ended(self) -> Ended:
        lasted_s = 0.0 if self._established_s is None else time.monotonic() - self._established_s
        return Ended(
            established=self._established_s is not None,
            by_peer=self.closed_by_peer,
            reason=self._reason or "closed",
            lasted_s=lasted_s,
            unacknowledged=self._unacknowledged,
            refusal=self._refusal,
            kind=self._login.kind,
            taken_over=self._taken_over,
        )

    # --- senders' threads ----------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, on_done: Done) -> None:
        while not self._window.acquire(timeout=0.5):
            if self._over.is_set():
                raise NotConnected("the connection ended while waiting for a free place in the window")
        if self._over.is_set():
            self._window.release()
            raise NotConnected("the connection has ended")
        try:
            mid = self._published(topic, payload)
        except OSError as error:
            self._window.release()
            raise NotConnected(f"the connection has ended: {error}") from error
        self._waiting[mid] = on_done
        if mid in self._early:  # the PUBACK was faster than the line above
            self._settle(mid, True)
        elif self._over.is_set():
            self._settle(mid, False)

    def _published(self, topic: str, payload: bytes) -> int:
        """The packet id."""
        name, properties = self._aliases.addressed(topic)
        mid = self._client.publish(name, payload, qos=1, properties=properties).mid
        if name:
            self._aliases.sent(mid, topic)
        return mid

    def request(
        self, topic: str, payload: bytes, answer_topic: str, timeout_s: float, on_done: Done = lambda _: None
    ) -> bytes:
        answers: SimpleQueue[bytes | None] = SimpleQueue()
        self._answers[answer_topic] = answers
        self._asked[topic] = payload, answers
        try:
            self.publish(topic, payload, on_done)
            answer = answers.get(timeout=timeout_s)
        except Empty:
            raise Unavailable(f"no answer on {answer_topic} within {timeout_s:.0f} s") from None
        finally:
            self._answers.pop(answer_topic, None)
            self._asked.pop(topic, None)
        if answer is payload:
            raise Unavailable("our own question came back: the server is a plain broker")
        if answer is None:
            raise NotConnected(f"the connection ended before the answer on {answer_topic}")
        return answer

    def subscribe(self, topic_filter: str) -> None:
        self._subscribe([(topic_filter, 1)])

    def _subscribe(self, filters: list[tuple[str, int]]) -> None:
        try:
            _, mid = self._client.subscribe(filters)
        except OSError as error:
            raise NotConnected(f"the connection has ended: {error}") from error
        if mid is None:
            raise NotConnected("the connection ended before the subscription")
        try:
            codes = self._suback(mid).get(timeout=SUBACK_TIMEOUT_S)
        except Empty:
            raise Unavailable(f"no SUBACK within {SUBACK_TIMEOUT_S:.0f} s") from None
        finally:
            self._subacks.pop(mid, None)
        refused = [name for (name, _), code in zip(filters, codes, strict=False) if code.is_failure]
        if refused:
            raise Refused(f"the server refused the subscription to {', '.join(refused)}")

    def _suback(self, mid: int) -> "SimpleQueue[list[ReasonCode]]":
        """Whichever thread comes first makes it: the SUBACK may overtake the subscriber."""
        return self._subacks.setdefault(mid, SimpleQueue())

    # --- paho's network thread: hand over, never block ------------------------------------------------------

    def _on_connect(self, client: Client, _: Any, __: ConnectFlags, code: ReasonCode, told: Properties | None) -> None:
        if code.is_failure:
            numbers = CONNACK_NUMBERS if self._version == MQTTv311 else CONNACK_NUMBERS | MQTT5_NUMBERS
            self._refusal = numbers.get(code.value, code.value)
            self._over.set()
        self._aliases = TopicAliases(REPEATED_TOPICS, getattr(told, "TopicAliasMaximum", 0))
        self._answered.set()

    def _on_subscribe(self, _: Client, __: Any, mid: int, codes: list[ReasonCode], ___: Properties | None) -> None:
        self._suback(mid).put(codes)

    def _on_publish(self, _: Client, __: Any, mid: int, code: ReasonCode, ___: Properties) -> None:
        if code.is_failure:  # MQTT 5 says so and goes on; what follows is the same as where it closes
            self.closed_by_peer = True
            self.end(f"the server refused a message: {code} (0x{code.value:02X})")
            return
        self._aliases.acknowledged(mid)
        if mid not in self._waiting:
            self._early.add(mid)  # the sender has not noted its packet id yet; it looks here after noting
        if mid in self._waiting:
            self._settle(mid, True)

    def _settle(self, mid: int, acknowledged: bool) -> None:
        """Exactly once a packet: whoever pops the sender's callback calls it."""
        on_done = self._waiting.pop(mid, None)
        if on_done is not None:
            self._early.discard(mid)
            self._window.release()
            on_done(acknowledged)

    def _on_paho_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        if (answers := self._answers.get(message.topic)) is not None:
            answers.put(bytes(message.payload))
            return
        if (asked := self._asked.get(message.topic)) is not None and asked[0] == bytes(message.payload):
            asked[1].put(asked[0])
            return
        with self._held_lock:
            if self._held is not None:
                if len(self._held) < MAX_HELD:
                    self._held.append((message.topic, bytes(message.payload)))
                return
        self._on_message(message.topic, bytes(message.payload))

    def _on_disconnect(
        self, _: Client, __: Any, flags: DisconnectFlags, code: ReasonCode, ___: Properties | None
    ) -> None:
        if not self._reason:
            self._reason = self._why(flags.is_disconnect_packet_from_server, code)
        self.usable = False
        self._over.set()

    def _why(self, told: bool, code: ReasonCode) -> str:
        """`told`: with MQTT 5 the server says why it closes."""
        if told:
            self.closed_by_peer, self._taken_over = True, code.value == TAKEN_OVER
            return f"{CLOSED}: {code} (0x{code.value:02X})"
        self.closed_by_peer = code.getName() == "Unspecified error"
        if fault := getattr(self._client, "fault", ""):
            return explained(fault)
        by_peer = CLOSED if self._server.tls or self._answered.is_set() else CLOSED_PLAIN
        return by_peer if self.closed_by_peer else str(code)

    def _fail_waiting(self) -> None:
        self._unacknowledged = len(self._waiting)
        for mid in list(self._waiting):
            self._settle(mid, False)
        for answers in list(self._answers.values()):
            answers.put(None)
