"""The main job end to end: a real consumer over TLS to ThingsBoard's stand-in and, as a second opinion, mosquitto."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.running import ControllerInbox, RunningGateway, measurements, message, own_address, wait_until

QUEUED, LIVE = 20_000, 200


@pytest.fixture
def tls(tmp_path: Path) -> ServerTls:
    return ServerTls.create(tmp_path / "tls")


@pytest.fixture
def server(tls: ServerTls) -> Iterator[ThingsBoard]:
    with ThingsBoard(tls=tls) as server:
        yield server


def gateway(tmp_path: Path, port: int, tls: ServerTls, host: str = "localhost", **environment: str) -> RunningGateway:
    settings = {"TB_TLS": "on", "THINGSBOARD_CA_CERT": str(tls.ca_file), **environment}
    return RunningGateway(tmp_path / "site", host, port, "T1", **settings)


def live(inbox: ControllerInbox, first: int, last: int) -> None:
    """As a controller does it: one row at a time, while the backlog drains."""
    for number in range(first, last + 1):
        inbox.insert(message(number))
        time.sleep(0.005)


def assert_archive_complete(running: RunningGateway, rows: int) -> None:
    kept = running.rows("SELECT message FROM record WHERE kind = 0 ORDER BY id")
    assert len(kept) == rows
    assert Counter(json.loads(str(text))["values"]["n"] for (text,) in kept) == Counter(range(1, rows + 1))
    counters = {str(name): int(str(value)) for name, value in running.rows("SELECT name, value FROM counter")}
    assert (counters["accepted"], counters["delivered"], counters.get("evicted", 0)) == (rows, rows, 0)


def test_a_backlog_and_live_rows_reach_thingsboard_once_each(
    tmp_path: Path, tls: ServerTls, server: ThingsBoard
) -> None:
    device = server.add_device("pi-07", token="T1")
    running = gateway(tmp_path, server.port, tls)
    inbox = ControllerInbox(running.inbox_path)
    inbox.insert_many(message(number) for number in range(1, QUEUED + 1))
    with running:
        device.wait_connected(30)
        live(inbox, QUEUED + 1, QUEUED + LIVE)
        expected = measurements(1, QUEUED + LIVE)
        device.wait_for(lambda d: d.distinct >= len(expected), 120, "all points stored")
        wait_until(lambda: inbox.count() == 0, 30, "the inbox is empty")
        outbox = "SELECT count(*) FROM outbox WHERE lane = 1"
        wait_until(lambda: running.rows(outbox) == [(0,)], 30, "everything is marked")
        assert running.stop() == 0
    device.assert_each_stored_once(expected)
    assert device.duplicates == 0
    device.assert_qos1_only()
    device.assert_max_unacked(20)
    device.assert_quiet_after_disconnect()
    assert len(device.publishes) < 1000
    assert len(device.sessions) == 1
    assert all(0 < len(payload) <= 60_000 and payload != b"[]" for payload in device.payloads)
    assert not any(publish.retain or publish.dup for publish in device.publishes)
    assert_archive_complete(running, QUEUED + LIVE)
    inbox.close()


def test_one_row_arrives_soon_and_unchanged(tmp_path: Path, tls: ServerTls, server: ThingsBoard) -> None:
    device = server.add_device("pi-07", token="T1")
    running = gateway(tmp_path, server.port, tls)
    inbox = ControllerInbox(running.inbox_path)
    with running:
        device.wait_connected(30)
        text = '{"ts": 1767225600123, "values": {"co2": 412.5, "on": true, "note": "dry", "cfg": {"a": [1, 2]}}}'
        inbox.insert(text)
        device.wait_for(lambda d: d.latest("co2") == 412.5, 20, "the row")
        assert f"[{text}]".encode() in device.payloads
        assert device.telemetry()[("cfg", 1767225600123)] == {"a": [1, 2]}
    inbox.close()


# --- an independent MQTT server


class Mosquitto:
    """A real broker on an address of its own, with TLS, and a subscriber that keeps an account of everything."""

    def __init__(self, directory: Path, tls: ServerTls) -> None:
        self.host, self.port, self._plain_port = own_address(), 8883, 1883
        self.tls = tls
        self.rpc_journal: list[tuple[str, int, bytes]] = []
        directory.mkdir()
        config = directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} {self.host}\ncafile {tls.ca_file}\ncertfile {tls.certificate_file}\n"
            f"keyfile {tls.key_file}\ntls_version tlsv1.2\nallow_anonymous true\n"
            f"listener {self._plain_port} {self.host}\nallow_anonymous true\nmax_queued_messages 0\n"
            f"user {'root' if os.getuid() == 0 else os.environ.get('USER', 'nobody')}\n"
        )
        self.log = directory / "mosquitto.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([_binary(), "-v", "-c", config], stdout=log, stderr=log)
        wait_until(self._listens, 20, f"mosquitto listens; {self.log.read_text()}")
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv311)
        self._client.on_message = self._received
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect(self.host, self._plain_port)
        self._client.loop_start()
        self._client.subscribe("#", qos=2)
        assert self._subscribed.wait(20)

    def _listens(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self._plain_port)) == 0

    def _received(self, _: Client, __: object, received: MQTTMessage) -> None:
        self.rpc_journal.append((received.topic, received.qos, bytes(received.payload)))

    def telemetry(self) -> list[bytes]:
        return [payload for topic, _, payload in list(self.rpc_journal) if topic == "v1/devices/me/telemetry"]

    def numbers(self) -> Counter[int]:
        return Counter(
            element["values"]["n"]
            for payload in self.telemetry()
            for element in _elements(payload)
            if "n" in element.get("values", {})
        )

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._process.terminate()
        self._process.wait(20)


def _elements(payload: bytes) -> list[dict[str, dict[str, int]]]:
    body = orjson.loads(payload)
    return body if isinstance(body, list) else [body]


def _binary() -> str:
    found = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("mosquitto is not installed; CI must have it")
        pytest.skip("mosquitto is not installed (Debian package 'mosquitto')")
    return found


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    mosquitto = Mosquitto(tmp_path / "mosquitto", ServerTls.create(tmp_path / "tls", [own_address()]))
    yield mosquitto
    mosquitto.close()


@pytest.mark.slow
def test_the_same_through_a_real_mosquitto(tmp_path: Path, mosquitto: Mosquitto) -> None:
    running = gateway(tmp_path, mosquitto.port, mosquitto.tls, mosquitto.host)
    inbox = ControllerInbox(running.inbox_path)
    inbox.insert_many(message(number) for number in range(1, QUEUED + 1))
    with running:
        running.wait_log("connected to", 30)
        live(inbox, QUEUED + 1, QUEUED + LIVE)
        seen = 0

        def all_arrived() -> bool:
            nonlocal seen
            if len(mosquitto.rpc_journal) == seen:
                return False
            seen = len(mosquitto.rpc_journal)
            return len(mosquitto.numbers()) >= QUEUED + LIVE

        wait_until(all_arrived, 120, "all rows at the subscriber")
        wait_until(lambda: inbox.count() == 0, 30, "the inbox is empty")
        outbox = "SELECT count(*) FROM outbox WHERE lane = 1"
        wait_until(lambda: running.rows(outbox) == [(0,)], 30, "everything is marked")
        assert running.stop() == 0
    assert mosquitto.numbers() == Counter(range(1, QUEUED + LIVE + 1))  # each exactly once
    assert {qos for _, qos, _ in mosquitto.rpc_journal} == {1}
    assert len(mosquitto.rpc_journal) < 1000
    assert max(len(payload) for _, _, payload in mosquitto.rpc_journal) <= 60_000
    assert_archive_complete(running, QUEUED + LIVE)
    assert "Socket error on client" not in mosquitto.log.read_text()
    inbox.close()
