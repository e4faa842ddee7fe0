"""A session as the gateway runs it, and what it told its listener."""

from collections.abc import Callable
from queue import SimpleQueue

from teg.adapters.mqtt_session import MqttSession, Server
from teg.domain.backoff import Backoff
from teg.domain.server.rate_limits import Pacer
from teg.domain.server.reconnect import ConnectionPolicy
from tests.support.running import wait_until

FAST = Backoff(first_s=0.02, cap_s=0.05)


class Client:
    """A session with its callbacks noted."""

    def __init__(
        self, port: int, token: Callable[[], str] = lambda: "T1", keepalive_s: int = 30, pacer: Pacer | None = None
    ) -> None:
        self.messages: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        self.connects = 0
        self.session = MqttSession(
            Server("127.0.0.1", port, None),
            token,
            lambda topic, payload: self.messages.put((topic, payload)),
            self._connected,
            ConnectionPolicy(FAST),
            keepalive_s,
            pacer=pacer,
        )

    def _connected(self) -> None:
        self.connects += 1

    def start(self) -> "Client":
        self.session.start()
        return self

    def connected(self, times: int = 1) -> "Client":
        wait_until(lambda: self.connects >= times and self.session.connected, 15, "connected")
        return self


def payload(number: int) -> bytes:
    return f'[{{"ts":{1_767_225_600_000 + number},"values":{{"n":{number}}}}}]'.encode()


def note(outcomes: "SimpleQueue[tuple[int, bool]]", number: int, done: bool) -> None:
    outcomes.put((number, done))


def expected(numbers: range) -> dict[tuple[str, int], int]:
    return {("n", 1_767_225_600_000 + number): number for number in numbers}
