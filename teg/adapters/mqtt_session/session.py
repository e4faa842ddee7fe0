"""The live MQTT connection: made again for ever.

Every connection is a fresh paho client, so nothing of an old one (packet ids, half-sent publishes, late answers) can
leak into the next. What was not acknowledged is reported as such; the sender, not this module, sends it again.
"""

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from teg.adapters.mqtt_session.connection import KEEPALIVE_S, Connection, Done, Server
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.server.reconnect import Advice, ConnectionPolicy, Ended

logger = logging.getLogger("gateway.session")


class MqttSession:
    """`telemetry.publisher.Link`: one thread makes connections, paho's thread serves the one there is."""

    def __init__(
        self,
        server: Server,
        token: Callable[[], str],
        on_message: Callable[[str, bytes], None],
        on_connected: Callable[[], None],
        policy: ConnectionPolicy | None = None,
        keepalive_s: int = KEEPALIVE_S,
    ) -> None:
        self._server = server
        self._token = token
        self._on_message = on_message
        self._on_connected = on_connected
        self._policy = policy or ConnectionPolicy()
        self._keepalive_s = keepalive_s
        self._connection: Connection | None = None
        self._last: Connection | None = None
        self._epoch = 0
        self._hurry = threading.Event()
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
        """How sure we are that somebody else uses our token ("may be", "most likely", "certain"); None: no reason."""
        return self._policy.second_user.suspicion

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Disconnect properly; what is unacknowledged then counts as not sent."""
        self._stopping.set()
        self._hurry.set()
        if (connection := self._connection) is not None:
            connection.end("the gateway stops")
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def publish(self, topic: str, payload: bytes, on_done: Done) -> None:
        self._live().publish(topic, payload, on_done)

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        results: SimpleQueue[bool] = SimpleQueue()
        self.publish(topic, payload, results.put)
        try:
            acknowledged = results.get(timeout=timeout_s)
        except Empty:
            raise Unavailable(f"no PUBACK for {topic} within {timeout_s:.0f} s") from None
        if not acknowledged:
            raise NotConnected(f"the connection ended before {topic} was acknowledged")

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        return self._live().request(topic, payload, answer_topic, timeout_s)

    def subscribe(self, topic_filter: str) -> None:
        self._live().subscribe(topic_filter)

    def give_up(self, reason: str) -> None:
        if (connection := self._connection) is not None:
            connection.end(reason)

    def reconnect_now(self) -> None:
        self._hurry.set()

    def network_returned(self) -> None:
        """A network interface came up: waiting any longer is for nothing."""
        if self._connection is None:
            self._policy.fresh_start()
            self._hurry.set()

    def works(self) -> None:
        self._policy.fresh_start()

    def stalled_s(self) -> float:
        connection = self._connection
        return 0.0 if connection is None else connection.stalled_s()

    def _live(self) -> "Connection":
        connection = self._connection
        if connection is None or not connection.usable:
            raise NotConnected("not connected to the server")
        return connection

    def _serve(self) -> None:
        while not self._stopping.is_set():
            ended = self._any_connection()
            if self._stopping.is_set():
                return
            advice = self._policy.after(ended)
            logger.log(advice.level, advice.text)
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
        if not self._stopping.wait(advice.soonest_s) and self._hurry.wait(advice.wait_s - advice.soonest_s):
            self._policy.hurried()
            if not self._stopping.is_set():
                logger.info("not waiting any longer: trying now")
        self._hurry.clear()

    def _one_connection(self) -> Ended:
        try:
            token = self._token()
        except (Unavailable, Refused) as reason:
            return Ended(False, False, str(reason))
        connection = Connection(self._server, token, self._on_message, self._established, self._keepalive_s)
        self._connection = self._last = connection
        try:
            return connection.run(self._stopping)
        finally:
            self._connection = None

    def _established(self) -> None:
        self._epoch += 1
        self._policy.established()
        logger.info("connected to %s:%d", self._server.host, self._server.port)
        self._on_connected()
