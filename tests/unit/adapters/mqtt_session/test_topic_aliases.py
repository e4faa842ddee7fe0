"""A topic that comes again is sent as a number, after the server has acknowledged what the number means."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from paho.mqtt.client import MQTTv5

from teg.adapters.mqtt_session import MqttSession, MQTTv311, Server
from teg.adapters.mqtt_session.topic_aliases import TopicAliases
from teg.domain.server.wire import ATTRIBUTES, TELEMETRY
from tests.support.byte_counter import ByteCounter
from tests.support.raw_server import RawServer, read_packet
from tests.support.running import wait_until

PAYLOAD = b'[{"ts":1767225600123,"values":{"n":1}}]'
BOTH_TOPICS = (TELEMETRY, ATTRIBUTES)


def number(aliases: TopicAliases, topic: str) -> tuple[str, int | None]:
    name, properties = aliases.addressed(topic)
    return name, None if properties is None else vars(properties)["TopicAlias"]


def test_the_topic_goes_along_until_it_was_acknowledged() -> None:
    aliases = TopicAliases(BOTH_TOPICS, 10)
    assert number(aliases, TELEMETRY) == (TELEMETRY, 1)
    aliases.sent(7, TELEMETRY)
    assert number(aliases, TELEMETRY) == (TELEMETRY, 1), "the first one may still be behind this one"
    aliases.acknowledged(6)
    assert number(aliases, TELEMETRY) == (TELEMETRY, 1), "another message"
    aliases.acknowledged(7)
    assert number(aliases, TELEMETRY) == ("", 1)
    assert number(aliases, ATTRIBUTES) == (ATTRIBUTES, 2)


@pytest.mark.parametrize("most", [0, 1])
def test_no_more_numbers_than_the_server_takes(most: int) -> None:
    aliases = TopicAliases(BOTH_TOPICS, most)
    assert number(aliases, TELEMETRY)[1] == (1 if most else None)
    assert number(aliases, ATTRIBUTES) == (ATTRIBUTES, None)


def test_a_topic_with_a_number_of_its_own_in_it_gets_none() -> None:
    assert number(TopicAliases(BOTH_TOPICS, 10), "v1/devices/me/rpc/response/17") == (
        "v1/devices/me/rpc/response/17",
        None,
    )


# --- on the wire


def announces(most: int | None, seen: "SimpleQueue[tuple[bytes, int | None]]") -> Callable[[socket.socket], None]:
    """A server with this Topic Alias Maximum (None: it says nothing); notes topic and alias of every publish."""

    def serve(connection: socket.socket) -> None:
        read_packet(connection)
        properties = b"" if most is None else b"\x22" + most.to_bytes(2, "big")
        connection.sendall(bytes([0x20, 3 + len(properties), 0, 0, len(properties)]) + properties)
        while True:
            first, body = read_packet(connection)
            if first >> 4 == 3:
                length = int.from_bytes(body[:2], "big")
                rest = body[2 + length :]
                alias = int.from_bytes(rest[4:6], "big") if rest[2] == 3 and rest[3] == 0x23 else None
                seen.put((body[2 : 2 + length], alias))
                connection.sendall(bytes([0x40, 2]) + rest[:2])

    return serve


@contextmanager
def session(port: int, version: int = MQTTv5, **how: Any) -> Iterator[MqttSession]:
    server = Server("127.0.0.1", port, None, versions=(version,))
    heard = how.pop("heard", lambda *_: None)
    made = MqttSession(server, lambda: "T1", heard, lambda: None, **{"subscriptions": (), **how})
    made.start()
    try:
        wait_until(lambda: made.connected, 15, "connected")
        yield made
    finally:
        made.stop()


def is_back(made: MqttSession, lives: int) -> bool:
    return made.epoch > lives and made.connected


@pytest.mark.parametrize("most", [None, 0, 1, 10])
def test_as_many_as_the_server_says_and_anew_on_every_connection(most: int | None) -> None:
    seen: SimpleQueue[tuple[bytes, int | None]] = SimpleQueue()
    telemetry, attributes = TELEMETRY.encode(), ATTRIBUTES.encode()
    with RawServer(announces(most, seen)) as raw, session(raw.port) as made:
        for life in (1, 2):
            for topic in (TELEMETRY, ATTRIBUTES) * 2:
                made.deliver(topic, PAYLOAD)
            again = b"" if most else telemetry, b"" if (most or 0) > 1 else attributes
            aliases = 1 if most else None, 2 if (most or 0) > 1 else None
            expected = list(zip((telemetry, attributes, *again), aliases * 2, strict=True))
            assert [seen.get(timeout=5) for _ in expected] == expected, life
            made.give_up("the test wants another connection")
            wait_until(partial(is_back, made, life), 20, "connected again")


# --- a real broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """mosquitto, which takes ten aliases unless told otherwise."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("mosquitto is not installed (Debian package 'mosquitto')")
    folder: Path = tmp_path_factory.mktemp("mosquitto")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = int(free.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    running = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, 20, "mosquitto listens")
    yield port
    running.terminate()
    running.wait(20)


def test_a_real_broker_knows_what_the_number_means_and_each_message_is_shorter(broker: int) -> None:
    arrived: SimpleQueue[str] = SimpleQueue()
    cost: dict[int, float] = {}
    with session(broker, MQTTv311, heard=lambda topic, _: arrived.put(topic), subscriptions=(TELEMETRY,)):
        for version in (MQTTv311, MQTTv5):
            with ByteCounter(("127.0.0.1", broker)) as counter, session(counter.port, version) as made:
                made.deliver(TELEMETRY, PAYLOAD)
                before = counter.up
                for _ in range(50):
                    made.deliver(TELEMETRY, PAYLOAD)
                cost[version] = (counter.up - before) / 50
        assert [arrived.get(timeout=5) for _ in range(102)] == [TELEMETRY] * 102
    assert cost[MQTTv311] == 2 + 2 + len(TELEMETRY) + 2 + len(PAYLOAD)
    assert cost[MQTTv311] - cost[MQTTv5] == len(TELEMETRY) - 4, "the length of the properties, and the alias"


def test_from_many_threads_no_number_leaves_before_its_meaning(broker: int) -> None:
    """mosquitto ends a connection that uses a number it was not told."""
    with session(broker) as made:
        failed: list[Exception] = []

        def deliver() -> None:
            try:
                for _ in range(40):
                    made.deliver(TELEMETRY, PAYLOAD)
            except Exception as error:  # noqa: BLE001 - handed to the test
                failed.append(error)

        threads = [threading.Thread(target=deliver) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (failed, made.epoch) == ([], 1)
