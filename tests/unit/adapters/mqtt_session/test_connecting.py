"""The MQTT session against the ThingsBoard stand-in, and against sockets that no MQTT server would be."""

import socket
from pathlib import Path

import pytest

from teg.adapters.mqtt_session import connection as module
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.server.wire import ATTRIBUTES, SUBSCRIPTIONS, TELEMETRY
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import next_n, when
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.raw_server import CONNACK_OK, RawServer, read_packet
from tests.support.running import wait_until
from tests.support.session_client import Client, expected, payload


def test_a_session_is_usable_when_its_three_subscriptions_are_granted(client: Client, device: Device) -> None:
    assert device.subscriptions == dict.fromkeys(SUBSCRIPTIONS, 1)
    assert client.session.epoch == 1
    assert device.sessions[0].clean


def test_a_refused_subscription_is_said_and_telemetry_still_flows(
    server: ThingsBoard, device: Device, clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.refuse_subscription = when(lambda message: message.topic == ATTRIBUTES)
    clients.append(Client(server.port).start().connected())
    assert f"the server refused the subscription to {ATTRIBUTES}" in caplog.text
    clients[0].session.deliver(TELEMETRY, payload(1))
    device.assert_each_stored_once(expected(range(1, 2)))


def test_a_later_subscription_is_checked_too(server: ThingsBoard, client: Client, device: Device) -> None:
    client.session.subscribe("v2/sw/response/+/chunk/+")
    assert "v2/sw/response/+/chunk/+" in device.subscriptions
    with pytest.raises(Refused, match="v2/fw/response/1"):
        client.session.subscribe("v2/fw/response/1")
    server.drop_connections()
    client.connected(times=2)
    assert set(device.subscriptions) == set(SUBSCRIPTIONS)  # extra ones are for one connection only


def test_every_refusal_is_tried_again_for_ever_without_leaking_sockets(
    server: ThingsBoard, device: Device, clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.connack_codes = [3] * 12
    clients.append(Client(server.port).start())
    wait_until(lambda: len(server.faults.connack_codes) == 10, 10, "two attempts")
    early = len(list(Path("/proc/self/fd").iterdir()))
    clients[0].connected()
    server.wait_for(lambda: server.open_connections == 1, 10, "one connection")
    assert len(list(Path("/proc/self/fd").iterdir())) <= early + 4
    assert caplog.text.count("limits our connects (CONNACK 3)") == 12


def test_a_corrected_token_is_taken_up_by_itself(
    server: ThingsBoard, device: Device, clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teg.domain.server.reconnect.CREDENTIALS_WAIT_S", 0.05)
    tokens = iter(["wrong", "wrong"])
    clients.append(Client(server.port, lambda: next(tokens, "T1")).start().connected())
    assert len(device.sessions) == 1


def test_a_token_that_cannot_be_had_now_is_asked_for_again(
    server: ThingsBoard, device: Device, clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    problems = iter([Unavailable("no answer"), Refused("the token file is empty")])

    def token() -> str:
        if problem := next(problems, None):
            raise problem
        return "T1"

    clients.append(Client(server.port, token).start().connected())
    assert "the token file is empty" in caplog.text


def test_nobody_listening_is_transient(
    device: Device, server: ThingsBoard, clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    server.stop_listening()
    clients.append(Client(server.port).start())
    wait_until(lambda: caplog.text.count("Connection refused") >= 3, 10, "three attempts")
    with pytest.raises(NotConnected):
        clients[0].session.publish(TELEMETRY, payload(1), lambda _: None)
    server.start_listening()
    clients[0].connected()


def test_a_server_that_hangs_up_at_once_is_transient(
    server: ThingsBoard, device: Device, clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.close_on_accept = next_n(5)
    clients.append(Client(server.port).start().connected())
    assert caplog.text.count("no connection to the server") == 5


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 9, bytes([0x20, 2, 0, 77]), b"\xff"])
def test_whatever_else_answers_on_that_port_is_transient(
    answer: bytes, clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    def serve(connection: socket.socket) -> None:
        read_packet(connection)
        connection.sendall(answer)

    with RawServer(serve) as raw:
        clients.append(Client(raw.port).start())
        wait_until(lambda: raw.connections >= 3, 20, "three attempts")
        clients[0].session.stop()
    assert "next try in" in caplog.text
    assert clients[0].connects == 0


def test_a_server_that_never_says_connack_is_given_up(clients: list[Client]) -> None:
    def silent(connection: socket.socket) -> None:
        while True:
            read_packet(connection)

    with RawServer(silent) as raw:
        clients.append(Client(raw.port, keepalive_s=1).start())
        wait_until(lambda: raw.connections >= 2, 20, "a second attempt")
        clients[0].session.stop()


def test_a_server_that_never_says_suback_is_used_anyway_and_told(
    clients: list[Client], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SUBACK_TIMEOUT_S", 0.2)

    def no_suback(connection: socket.socket) -> None:
        read_packet(connection)
        connection.sendall(CONNACK_OK)
        while True:
            read_packet(connection)

    with RawServer(no_suback) as raw:
        clients.append(Client(raw.port).start().connected())
        assert "no SUBACK within" in caplog.text
        clients[0].session.stop()


def test_an_established_session_that_goes_silent_is_noticed_by_keep_alive(
    server: ThingsBoard, device: Device, clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    clients.append(Client(server.port, keepalive_s=1).start().connected())
    server.faults.freeze = True
    wait_until(lambda: "Keep alive timeout" in caplog.text, 20, "the half-open link is noticed")
    assert not clients[0].session.closed_by_peer
    server.faults.freeze = False
    clients[0].connected(times=2)


def test_an_idle_session_stays_for_many_keep_alives(server: ThingsBoard, device: Device, clients: list[Client]) -> None:
    clients.append(Client(server.port, keepalive_s=1).start().connected())
    device.wait_for(lambda d: d.sessions[0].pings >= 3, 20, "three pings")
    assert len(device.sessions) == 1
