"""The MQTT session: ending, publishing, questions and messages, against the ThingsBoard stand-in."""

import logging
import threading
import time
from collections import Counter
from functools import partial
from queue import SimpleQueue

import pytest
from paho.mqtt.client import MQTTMessageInfo
from paho.mqtt.properties import Properties

from teg.adapters.mqtt_session import MqttSession, Server
from teg.domain.backoff import Backoff
from teg.domain.errors import NotConnected, Unavailable
from teg.domain.server.reconnect import ConnectionPolicy
from teg.domain.server.wire import ATTRIBUTES, MAX_UNACKNOWLEDGED, TELEMETRY
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import always, every, next_n
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import CLOSED_PORT, wait_until
from tests.support.session_client import FAST, Client, expected, note, payload
from tests.support.threads import runs

# --- ending


def assert_stops(client: Client) -> None:
    """Although the other side would let it wait for ever."""
    stopping = threading.Thread(target=client.session.stop, daemon=True)
    stopping.start()
    stopping.join(30)
    assert not stopping.is_alive()


@pytest.mark.parametrize("moment", ["silent", "refused", "frozen"])
def test_a_stop_while_connecting_is_quick(moment: str, server: ThingsBoard, clients: list[Client]) -> None:
    server.faults.freeze = moment == "silent"
    server.faults.connack_delay_s = 300 if moment == "frozen" else 0
    port = CLOSED_PORT if moment == "refused" else server.port
    client = Client(port).start()
    if moment != "refused":
        server.wait_for(lambda: server.open_connections, 10, "the attempt")
    assert_stops(client)
    assert not runs("mqtt-session")
    with pytest.raises(NotConnected):
        client.session.deliver(TELEMETRY, payload(1))


def test_a_stop_says_goodbye_and_nothing_more(client: Client, device: Device) -> None:
    client.session.deliver(TELEMETRY, payload(1))
    client.session.stop()
    device.wait_disconnected()
    assert device.sessions[0].disconnected
    device.assert_quiet_after_disconnect()
    assert len(device.sessions) == 1


@pytest.mark.parametrize("fault", ["freeze", "stop_reading"])
def test_a_stop_with_a_dead_link_is_bounded(server: ThingsBoard, device: Device, client: Client, fault: str) -> None:
    if fault == "freeze":
        server.faults.freeze = True
    else:
        server.pause_reading()
    results: SimpleQueue[bool] = SimpleQueue()
    for number in range(MAX_UNACKNOWLEDGED):
        client.session.publish(TELEMETRY, payload(number) + b" " * 59_000, results.put)
    assert_stops(client)
    assert [results.get(timeout=5) for _ in range(MAX_UNACKNOWLEDGED)] == [False] * MAX_UNACKNOWLEDGED
    assert not runs("mqtt-session")
    server.faults.freeze = False
    server.pause_reading(False)


def test_giving_up_a_dead_link_makes_a_new_one_soon(server: ThingsBoard, device: Device, client: Client) -> None:
    server.pause_reading()
    for number in range(MAX_UNACKNOWLEDGED):
        client.session.publish(TELEMETRY, payload(number) + b" " * 59_000, lambda _: None)
    client.session.give_up("no PUBACK for 45 s")
    assert not client.session.connected
    server.pause_reading(False)
    client.connected(times=2)
    assert not client.session.closed_by_peer


def test_who_ended_the_connection_is_known(server: ThingsBoard, device: Device, client: Client) -> None:
    device.kick()
    client.connected(times=2)
    wait_until(lambda: client.session.epoch == 2, 10, "the second epoch")
    client.session.give_up("for a test")
    client.connected(times=3)


# --- publishing


def test_every_publish_is_settled_exactly_once_under_many_senders(
    server: ThingsBoard, device: Device, client: Client
) -> None:
    """Eight threads send while the server drops the connection now and then."""
    settled: Counter[int] = Counter()
    outcomes: SimpleQueue[tuple[int, bool]] = SimpleQueue()
    refused: SimpleQueue[int] = SimpleQueue()
    server.faults.close_before_puback = every(97, times=6)

    def send(first: int) -> None:
        for number in range(first, first + 150):
            try:
                client.session.publish(TELEMETRY, payload(number), partial(note, outcomes, number))
            except NotConnected:
                refused.put(number)
                time.sleep(0.005)

    threads = [threading.Thread(target=send, args=(first,)) for first in range(0, 1200, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wait_until(lambda: outcomes.qsize() + refused.qsize() >= 1200, 30, "every publish is settled")
    acknowledged = set()
    while not outcomes.empty():
        number, done = outcomes.get()
        settled[number] += 1
        acknowledged |= {number} if done else set()
    while not refused.empty():
        settled[refused.get()] += 1
    assert set(settled.values()) == {1}
    assert len(settled) == 1200
    assert acknowledged <= {ts - 1_767_225_600_000 for _, ts in device.telemetry()}
    device.assert_max_unacked(MAX_UNACKNOWLEDGED)
    device.assert_qos1_only()


def test_the_window_holds_senders_back(server: ThingsBoard, device: Device, client: Client) -> None:
    server.faults.puback_delay_s = 0.05
    done: SimpleQueue[bool] = SimpleQueue()
    for number in range(100):
        client.session.publish(TELEMETRY, payload(number), done.put)
    assert [done.get(timeout=10) for _ in range(100)] == [True] * 100
    assert device.max_unacked == MAX_UNACKNOWLEDGED
    assert client.session._connection is not None
    assert (client.session._connection._waiting, client.session._connection._early) == ({}, set())


def test_a_lost_connection_frees_a_sender_that_waits_for_the_window(
    server: ThingsBoard, device: Device, client: Client
) -> None:
    server.faults.drop_puback = always()
    for number in range(MAX_UNACKNOWLEDGED):
        client.session.publish(TELEMETRY, payload(number), lambda _: None)
    failed = threading.Event()

    def one_more() -> None:
        with pytest.raises(NotConnected):
            client.session.publish(TELEMETRY, payload(99), lambda _: None)
        failed.set()

    thread = threading.Thread(target=one_more)
    thread.start()
    server.drop_connections()
    assert failed.wait(10)
    thread.join()


def test_a_puback_that_overtakes_the_sender_is_not_lost(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network thread may see it before `publish` has returned the packet id."""
    connection = client.session._connection
    assert connection is not None
    original = connection._client.publish

    def slow(topic: str, body: bytes, qos: int, properties: Properties | None) -> MQTTMessageInfo:
        sent = original(topic, body, qos, properties=properties)
        wait_until(lambda: sent.mid in connection._early, 10, "the PUBACK")
        return sent

    monkeypatch.setattr(connection._client, "publish", slow)
    done: SimpleQueue[bool] = SimpleQueue()
    client.session.publish(TELEMETRY, payload(1), done.put)
    assert done.get(timeout=10) is True
    assert (connection._waiting, connection._early) == ({}, set())


def test_pubacks_out_of_order_are_matched(server: ThingsBoard, device: Device, client: Client) -> None:
    server.faults.puback_out_of_order = 5
    order: SimpleQueue[tuple[int, bool]] = SimpleQueue()
    for number in range(5):
        client.session.publish(TELEMETRY, payload(number), partial(note, order, number))
    assert [order.get(timeout=10)[0] for _ in range(5)] == [4, 3, 2, 1, 0]


def test_deliver_waits_for_the_puback_and_says_why_not(server: ThingsBoard, device: Device, client: Client) -> None:
    client.session.deliver(TELEMETRY, payload(1))
    device.assert_each_stored_once(expected(range(1, 2)))
    server.faults.drop_puback = next_n(1)
    with pytest.raises(Unavailable, match="no PUBACK for v1/devices/me/telemetry"):
        client.session.deliver(TELEMETRY, payload(2), timeout_s=0.2)
    server.faults.close_before_puback = next_n(1)
    with pytest.raises(NotConnected, match="ended before"):
        client.session.deliver(TELEMETRY, payload(3))


# --- questions and messages


def ask(client: Client, number: int, timeout_s: float = 10.0) -> bytes:
    request = f"v1/devices/me/attributes/request/{number}"
    return client.session.request(
        request, b'{"sharedKeys":"a"}', request.replace("request", "response"), timeout_s=timeout_s
    )


def test_questions_get_their_own_answers(server: ThingsBoard, device: Device, client: Client) -> None:
    device.set_shared({"a": 1})
    client.messages = SimpleQueue()
    answers: SimpleQueue[bytes] = SimpleQueue()
    threads = [threading.Thread(target=lambda n=n: answers.put(ask(client, n))) for n in range(1, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [answers.get_nowait() for _ in range(10)] == [b'{"shared":{"a":1}}'] * 10
    assert client.session._connection is not None
    assert client.session._connection._answers == {}


def test_a_question_without_an_answer_ends(server: ThingsBoard, device: Device, client: Client) -> None:
    server.faults.swallow_attribute_responses = always()
    with pytest.raises(Unavailable, match="no answer on v1/devices/me/attributes/response/7"):
        ask(client, 7, timeout_s=0.2)


def test_a_lost_connection_ends_a_question(server: ThingsBoard, device: Device, client: Client) -> None:
    server.faults.swallow_attribute_responses = always()
    ended = threading.Event()

    def question() -> None:
        with pytest.raises(NotConnected):
            ask(client, 7, timeout_s=60)
        ended.set()

    thread = threading.Thread(target=question)
    thread.start()
    device.wait_for(lambda d: d.attribute_requests, 10, "the question")
    server.drop_connections()
    assert ended.wait(10)
    thread.join()


def test_an_answer_to_the_last_connections_question_answers_nobody(
    server: ThingsBoard, device: Device, client: Client
) -> None:
    server.faults.stale_attribute_response = next_n(1)
    with pytest.raises(Unavailable):
        ask(client, 1, timeout_s=0.2)
    server.drop_connections()
    client.connected(times=2)
    device.release_attribute_responses()
    assert client.messages.get(timeout=10)[0] == "v1/devices/me/attributes/response/1"
    device.set_shared({"a": 2})
    assert ask(client, 2) == b'{"shared":{"a":2}}'


def test_pushes_and_calls_reach_the_listener(device: Device, client: Client) -> None:
    device.set_shared({"a": 1})
    assert client.messages.get(timeout=10) == (ATTRIBUTES, b'{"a":1}')
    handle = device.rpc_async("ping", {"n": 1})
    topic, body = client.messages.get(timeout=10)
    assert body == b'{"method":"ping","params":{"n":1}}'
    client.session.deliver(topic.replace("request", "response"), b'{"message":"Pong"}')
    assert handle.wait().response == {"message": "Pong"}


def test_a_callback_that_raises_does_not_end_the_network_thread(
    server: ThingsBoard, device: Device, clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(topic: str, payload: bytes) -> None:
        raise RuntimeError("a bug")

    session = MqttSession(
        Server("127.0.0.1", server.port, None), lambda: "T1", broken, lambda: None, ConnectionPolicy(FAST)
    )
    session.start()
    wait_until(lambda: session.connected, 10, "connected")
    device.set_shared({"a": 1})
    session.deliver(TELEMETRY, payload(1))
    assert session.epoch == 1
    session.stop()


@pytest.mark.parametrize("moment", ["before the wait", "in the wait"])
def test_a_wish_to_reconnect_cuts_the_wait_short(
    server: ThingsBoard, device: Device, clients: list[Client], moment: str
) -> None:
    policy = ConnectionPolicy(Backoff(first_s=0.05, cap_s=3600.0, factor=100_000))
    session = MqttSession(Server("127.0.0.1", server.port, None), lambda: "T1", lambda *_: None, lambda: None, policy)
    server.faults.connack_codes = [3]
    session.start()
    wait_until(lambda: session.connected, 10, "connected after the first, short wait")
    if moment == "before the wait":
        session.reconnect_now()
    server.drop_connections()
    if moment == "in the wait":
        device.wait_disconnected()
        wait_until(lambda: session._connection is None, 10, "the session has noticed")
        session.reconnect_now()
    wait_until(lambda: session.epoch == 2, 10, "connected again")
    session.stop()


def test_an_ended_connection_says_so_in_the_log(
    server: ThingsBoard, device: Device, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.drop_connections()
    client.connected(times=2)
    assert "closed by the server; next try in" in caplog.text
    assert f"connected to 127.0.0.1:{server.port}" in caplog.text


def test_a_stop_or_subscription_beside_an_ending_connection_is_quiet(
    server: ThingsBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paho closes its wake-up socket under whoever is just about to write to it."""

    def too_late(*_: object, **__: object) -> None:
        raise OSError(9, "Bad file descriptor")

    server.add_device("pi", token="T1")
    client = Client(server.port).start().connected()
    connection = client.session._connection
    assert connection is not None
    monkeypatch.setattr(connection._client, "subscribe", too_late)
    with pytest.raises(NotConnected):
        client.session.subscribe("v2/sw/response/+/chunk/+")
    monkeypatch.setattr(connection._client, "disconnect", too_late)
    client.session.stop()
    assert not client.session.connected
