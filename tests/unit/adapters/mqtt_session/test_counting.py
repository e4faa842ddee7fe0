"""What the session counts of the server's rate limits: every message it sends, until the server has read it."""

import orjson
import pytest

from teg.domain.errors import NotConnected, Unavailable
from teg.domain.server.rate_limits import Limits, Pacer
from teg.domain.server.wire import ATTRIBUTES, SOFTWARE_CHUNK_FILTER, TELEMETRY
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import always
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import CLOSED_PORT, wait_until
from tests.support.session_client import Client, payload

QUESTION, ANSWER = "v1/devices/me/attributes/request/1", "v1/devices/me/attributes/response/1"
CONNECT = 3


class Books(Pacer):
    """What went out, and what is still under way."""

    def __init__(self) -> None:
        super().__init__()
        self.use(Limits(), 0.0)
        self.messages = self.points = self.under_way = 0

    def _reserve(self, points: int, messages: int) -> None:
        super()._reserve(points, messages)
        self.messages += messages
        self.points += points
        self.under_way += messages

    def arrived(self, now_s: float, points: int, messages: int = 1) -> None:
        super().arrived(now_s, points, messages)
        self.under_way -= messages


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def client(server: ThingsBoard, device: Device, clients: list[Client], books: Books) -> Client:
    clients.append(Client(server.port, pacer=books).start().connected())
    return clients[0]


def test_a_connect_is_three_messages(client: Client, books: Books) -> None:
    wait_until(lambda: books.under_way == 0, 10, "the server has them")
    assert books.messages == CONNECT


def test_whatever_is_sent_counts_and_is_settled(client: Client, books: Books, device: Device) -> None:
    """But telemetry that somebody else publishes: whoever makes it knows how many data points it has, and counts it."""
    client.session.deliver(TELEMETRY, payload(1))
    client.session.deliver(ATTRIBUTES, b'{"a": 1, "b": 2}')
    client.session.publish(ATTRIBUTES, b'{"c": 3}', lambda _: None)
    client.session.request(QUESTION, b'{"clientKeys": "a"}', ANSWER)
    client.session.subscribe(SOFTWARE_CHUNK_FILTER)
    client.session.publish(TELEMETRY, payload(2), lambda _: None)
    wait_until(lambda: books.under_way == 0, 10, "the server has them")
    assert (books.messages, books.points) == (CONNECT + 5, 4)


def test_a_call_counts_for_what_the_server_notes_about_it(client: Client, books: Books, device: Device) -> None:
    """That it is sent, and with our PUBACK that it is delivered."""
    device.rpc_async("ping", {})
    topic, _ = client.messages.get(timeout=10)
    assert "rpc/request" in topic
    assert (books.messages, books.under_way) == (CONNECT + 2, 0)


def test_what_was_not_acknowledged_is_settled_with_the_connection(
    server: ThingsBoard, device: Device, client: Client, books: Books
) -> None:
    server.faults.drop_puback = always()
    client.session.publish(ATTRIBUTES, orjson.dumps({"a": 1}), lambda _: None)
    with pytest.raises(Unavailable):
        client.session.request(QUESTION, b"{}", "v1/devices/me/attributes/response/7", timeout_s=0.1)
    assert books.under_way == 2
    client.session.stop()
    assert books.under_way == 0


def test_what_could_not_be_sent_is_settled_too(client: Client, books: Books) -> None:
    client.session.stop()
    messages = books.messages
    with pytest.raises(NotConnected):
        client.session.deliver(ATTRIBUTES, b'{"a": 1}')
    assert (books.messages, books.under_way) == (messages, 0)


def test_a_connect_in_vain_is_settled(clients: list[Client], books: Books) -> None:
    clients.append(Client(CLOSED_PORT, pacer=books).start())
    wait_until(lambda: books.messages >= 2 * CONNECT, 10, "two tries")
    clients[0].session.stop()
    assert books.under_way == 0
