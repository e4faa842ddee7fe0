"""One question to the server's provisioning endpoint, on a connection of its own."""

import ssl
import threading
from queue import Empty, SimpleQueue
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from teg.domain.errors import Unavailable
from teg.domain.server.wire import PROVISION_REQUEST, PROVISION_RESPONSE, PROVISION_USER

TIMEOUT_S = 20.0


class ProvisioningEndpoint:
    """`ask` connects as user `provision`, publishes the request at QoS 1 and returns the answer."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        timeout_s: float = TIMEOUT_S,
        client: type[Client] = Client,
    ) -> None:
        self._client_type = client
        self._host = host
        self._port = port
        self._tls = tls
        self._timeout_s = timeout_s

    def ask(self, request: bytes) -> bytes:
        """
        Raises:
            Unavailable: no connection, or no answer in time (the server closes without a word on a bad request).
        """
        answers: SimpleQueue[bytes] = SimpleQueue()
        over = threading.Event()
        client = self._client(request, answers, over)
        try:
            client.connect(self._host, self._port, keepalive=30)
            client.loop_start()
            return self._wait(answers, over)
        except (OSError, ValueError, Unavailable) as error:
            raise Unavailable(f"provisioning at {self._host}:{self._port}: {error}") from error
        finally:
            client.disconnect()
            client.loop_stop()

    def _client(self, request: bytes, answers: "SimpleQueue[bytes]", over: threading.Event) -> Client:
        def connected(client: Client, _: Any, __: ConnectFlags, code: ReasonCode, ___: Properties | None) -> None:
            if code.is_failure:
                over.set()
                return
            client.subscribe(PROVISION_RESPONSE, 1)
            client.publish(PROVISION_REQUEST, request, qos=1)

        def received(_: Client, __: Any, message: MQTTMessage) -> None:
            if message.topic == PROVISION_RESPONSE:
                answers.put(bytes(message.payload))

        client = self._client_type(CallbackAPIVersion.VERSION2, protocol=MQTTv311, reconnect_on_failure=False)
        client.username_pw_set(PROVISION_USER)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.connect_timeout = 10.0
        client.on_connect = connected
        client.on_message = received
        client.on_disconnect = lambda *_: over.set()
        return client

    def _wait(self, answers: "SimpleQueue[bytes]", over: threading.Event) -> bytes:
        for _ in range(int(self._timeout_s * 10)):
            try:
                return answers.get(timeout=0.1)
            except Empty:
                if over.is_set() and answers.empty():
                    raise Unavailable("the server closed the provisioning connection without an answer") from None
        raise Unavailable(f"no provisioning answer within {self._timeout_s:.0f} s")
