"""The live MQTT connection: made again for ever.

Every connection is a fresh paho client, so nothing of an old one (packet ids, half-sent publishes, late answers) can
leak into the next. What was not acknowledged is reported as such; the sender, not this module, sends it again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue

from paho.mqtt.client import MQTTv311

from teg.adapters.mqtt_session.connection import KEEPALIVE_S, Connection, Done
from teg.adapters.mqtt_session.server import Server
from teg.adapters.mqtt_session.tcp_progress import Departure
from teg.adapters.mqtt_session.version import ProtocolVersion, VersionMemory
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.liveness import UNLIMITED, Liveness
from teg.domain.server.login import Login
from teg.domain.server.rate_limits import Limits, OnTheWay, Pacer, data_points
from teg.domain.server.reconnect import Advice, ConnectionPolicy, Ended
from teg.domain.server.wire import (
    GATEWAY_TELEMETRY,
    RPC_REQUEST,
    RPC_RESPONSE,
    SUBSCRIPTIONS,
    TELEMETRY,
    TELEMETRY_SHORT,
)

logger = logging.getLogger("gateway.session")

#: What the server counts of a new session: CONNECT, and two of our subscriptions.
CONNECT_MESSAGES = 3
#: And of each call that it makes: it notes that it is sent, and with our PUBACK that it is delivered.
CALL_MESSAGES = 2
#: Looking up the server's name takes as long as each of the name servers, one after the other.
CONNECT_S = 180.0
#: Topics of our own questions, of which there is one: what the limits are.
QUESTIONS = RPC_REQUEST.format(id="")
ANSWERS = RPC_RESPONSE.format(id="")
#: So long after a connect the first question for the limits is asked, one more such wait after each in vain (seconds).
QUESTION_AFTER_S, LATEST_QUESTION_S = 0.4, 4.0


#: While an acknowledgement is waited for, the link is looked at this often (seconds).
LOOK_S = 1.0


class MqttSession:
    """`telemetry.publisher.Link`: one thread makes connections, paho's thread serves the one there is."""

    def __init__(
        self,
        server: Server,
        token: Callable[[], str | Login],
        on_message: Callable[[str, bytes], None],
        on_connected: Callable[[], None],
        policy: ConnectionPolicy | None = None,
        keepalive_s: int = KEEPALIVE_S,
        pacer: Pacer | None = None,
        now_s: Callable[[], float] = time.monotonic,
        subscriptions: Sequence[str] = SUBSCRIPTIONS,
        liveness: Liveness | None = None,
        version_memory: VersionMemory | None = None,
        count_bytes: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        """`token` is asked and `subscriptions` are made at every connection; none for whoever only sends.

        `count_bytes(sent, received)` hears every few seconds what went over the wire since.
        """
        self._count_bytes = count_bytes
        self._short_epoch = 0
        self._liveness = liveness or Liveness()
        self._pacer = pacer or _unlimited()
        self._unanswered = 0
        self._now_s = now_s
        self._subscriptions = subscriptions
        self._server = server
        self._token = token
        self._on_message = on_message
        self._on_connected = on_connected
        self._policy = policy or ConnectionPolicy()
        self._keepalive_s = keepalive_s
        self._version = ProtocolVersion(server.versions, version_memory)
        self._connection: Connection | None = None
        self._last: Connection | None = None
        self._epoch = 0
        self._reconnect = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="mqtt-session", daemon=True)

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.usable

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def closed_by_peer(self) -> bool:
        return self._last is not None and self._last.closed_by_peer

    @property
    def second_user(self) -> str | None:
        """How sure we are that somebody else uses our token ("may be", "most likely"); None: no reason."""
        return self._policy.second_user.suspicion

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Disconnect properly; what is unacknowledged then counts as not sent."""
        self._stopping.set()
        self._reconnect.set()
        if (connection := self._connection) is not None:
            connection.end("the gateway stops")
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def publish(self, topic: str, payload: bytes, on_done: Done) -> None:
        """Telemetry has waited for the server's limits already, and is counted by its sender; the rest is so here."""
        if topic in (TELEMETRY, GATEWAY_TELEMETRY):
            self._live().publish(self._spelled(topic), payload, on_done)
            return
        with self._admitted(topic, payload) as message:
            self._live().publish(topic, payload, _both(message, on_done))

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        results: SimpleQueue[bool] = SimpleQueue()
        with self._admitted(topic, payload) as message:
            connection = self._live()
            way = Departure(connection, len(payload))
            connection.publish(self._spelled(topic), payload, _both(message, results.put))
        while (acknowledged := _taken(results, min(timeout_s, LOOK_S))) is None:
            if way.quiet_s() >= timeout_s:
                raise Unavailable(f"no PUBACK for {topic} within {timeout_s:.0f} s")
        if not acknowledged:
            raise NotConnected(f"the connection ended before {topic} was acknowledged")

    def count_bytes(self) -> None:
        """Hand on at once what went over the wire, which else is done every few seconds."""
        if (connection := self._connection) is not None:
            connection.count_bytes()

    def use_short_topic(self, epoch: int) -> None:
        """The server of this connection is known to take telemetry on the short topic."""
        self._short_epoch = epoch

    def _spelled(self, topic: str) -> str:
        """MQTT 5 has its own way to shorten a topic, and needs none."""
        short = topic == TELEMETRY and self._short_epoch == self._epoch and self._version.number == MQTTv311
        return TELEMETRY_SHORT if short else topic

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        with self._admitted(topic, payload) as message:
            return self._live().request(topic, payload, answer_topic, timeout_s, _both(message))

    def subscribe(self, topic_filter: str) -> None:
        with self._admitted(topic_filter, b"") as message:
            self._live().subscribe(topic_filter)
            message.arrived()

    def give_up(self, reason: str) -> None:
        if (connection := self._connection) is not None:
            connection.end(reason)

    def reconnect_now(self) -> None:
        self._reconnect.set()

    def network_returned(self) -> None:
        """A network interface came up: waiting any longer is for nothing."""
        if self._connection is None:
            self._policy.fresh_start()
            self._reconnect.set()

    def works(self) -> None:
        self._policy.fresh_start()

    def stalled_s(self) -> float:
        connection = self._connection
        return 0.0 if connection is None else connection.stalled_s()

    @contextmanager
    def _admitted(self, topic: str, payload: bytes) -> Iterator[OnTheWay]:
        """Enter when the message may go; if it could not be sent, it may have been, and counts."""
        message = OnTheWay(self._pacer, self._now_s, self._wait_for_limits(topic, payload))
        try:
            yield message
        except NotConnected:
            message.arrived()
            raise

    def _wait_for_limits(self, topic: str, payload: bytes) -> int:
        """Returns when the message may go: how many data points the server will count.

        Raises:
            NotConnected: the connection ended meanwhile.
            Unavailable: the limits are being asked for; only answers to calls wait for that, the rest is tried again.
        """
        connection, points = self._live(), data_points(topic, payload)
        if topic.startswith(QUESTIONS) and not self._pacer.known:
            self._ask_late(connection)
            return 0
        if not topic.startswith(ANSWERS) and self._pacer.asking(self._now_s()):
            raise Unavailable("the server is being asked for its rate limits first")
        while (wait_s := self._pacer.take(self._now_s(), points)) > 0:
            self._stopping.wait(min(wait_s, 0.5))
            if not connection.usable or self._stopping.is_set():
                raise NotConnected("the connection ended while waiting for the server's rate limit")
        return points

    def _ask_late(self, connection: Connection) -> None:
        """At three messages a second the connect has taken them all: the question would end the session each time."""
        self._unanswered += 1
        self._stopping.wait(min(QUESTION_AFTER_S * self._unanswered, LATEST_QUESTION_S))
        if not connection.usable:
            raise NotConnected("the connection ended before the server could be asked for its limits")
        self._pacer.sent(0)

    def _live(self) -> "Connection":
        connection = self._connection
        if connection is None or not connection.usable:
            raise NotConnected("not connected to the server")
        return connection

    def _serve(self) -> None:
        pulse = self._liveness.watch("the session's thread")
        while not self._stopping.is_set():
            pulse.note("connects, or serves a connection", CONNECT_S)
            began_s = self._now_s()
            ended = self._any_connection()
            if self._stopping.is_set():
                return
            advice = self._policy.after(replace(ended, took_s=self._now_s() - began_s))
            logger.log(advice.level, advice.text)
            pulse.note("waits for its next try", UNLIMITED)
            self._pause(advice)

    def _any_connection(self) -> Ended:
        """Whatever goes wrong in one connection, there is a next one."""
        try:
            return self._one_connection()
        except Exception as error:
            logger.exception("the connection failed in a way that nobody has thought of")
            return Ended(False, False, f"{type(error).__name__}: {error}")

    def _pause(self, advice: Advice) -> None:
        """The hurried may come at any moment of the wait: the publisher notices a lost connection after we do."""
        if not self._stopping.wait(advice.soonest_s) and self._reconnect.wait(advice.wait_s - advice.soonest_s):
            self._policy.hurried()
            if not self._stopping.is_set():
                logger.info("not waiting any longer: trying now")
        self._reconnect.clear()

    def _one_connection(self) -> Ended:
        try:
            token = self._token()
        except (Unavailable, Refused) as reason:
            return Ended(False, False, str(reason))
        while (wait_s := self._pacer.wait_to_connect_s(self._now_s(), CONNECT_MESSAGES)) > 0:
            if self._stopping.wait(min(wait_s, 1.0)):
                return Ended(False, False, "the gateway stops")
        messages = OnTheWay(self._pacer, self._now_s, messages=CONNECT_MESSAGES)
        connection = Connection(
            self._server,
            token,
            self._heard,
            partial(self._established, messages),
            self._keepalive_s,
            self._subscriptions,
            liveness=self._liveness,
            version=self._version.number,
            count_bytes=self._count_bytes,
        )
        self._connection = self._last = connection
        self._pacer.sent(0, CONNECT_MESSAGES)
        try:
            return connection.run(self._stopping)
        finally:
            messages.arrived()
            self._connection = None
            self._version.ended(connection.answered, connection.closed_unanswered, connection.refuses_version)

    def _heard(self, topic: str, payload: bytes) -> None:
        if topic.startswith(QUESTIONS):
            self._pacer.sent(0, CALL_MESSAGES)
            self._pacer.arrived(self._now_s(), 0, CALL_MESSAGES)
        self._on_message(topic, payload)

    def _established(self, messages: OnTheWay) -> None:
        self._epoch += 1
        messages.arrived()
        self._pacer.connected(self._now_s())
        self._policy.established()
        logger.info("connected to %s:%d with %s", self._server.host, self._server.port, self._version.name)
        self._on_connected()


def _taken(results: "SimpleQueue[bool]", timeout_s: float) -> bool | None:
    try:
        return results.get(timeout=timeout_s)
    except Empty:
        return None


def _both(message: OnTheWay, on_done: Done = lambda _: None) -> Done:
    """Acknowledged or not, the server has read it, or never will."""

    def done(acknowledged: bool) -> None:
        message.arrived()
        on_done(acknowledged)

    return done


def _unlimited() -> Pacer:
    pacer = Pacer()
    pacer.use(Limits(), 0.0)
    return pacer
