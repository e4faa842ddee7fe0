"""Other ways from a controller to ThingsBoard, each with a backlog of its own to deliver to the same server.

All of them are others' programs, as they are installed: Debian's mosquitto, and ThingsBoard's two clients of PyPI in an
environment of their own (`make .venv-clients/.ready`).
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion

from bench.records import record
from bench.server import TOKEN, Server
from tests.support.running import PROJECT, own_address, wait_until

CLIENTS = PROJECT / ".venv-clients"
PATIENCE_S = 120.0
#: Of every local broker here; each run has an address of its own.
PORT = 18_830

_SDK = """
import json, sys, time
from tb_device_mqtt import TBDeviceMqttClient
host, port, token, file, together = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
records = [json.loads(line) for line in open(file)]
client = TBDeviceMqttClient(host, port, token)
client.connect()
while not client.is_connected():
    time.sleep(0.1)
print("connected", flush=True)
sys.stdin.readline()
sent = [client.send_telemetry(records[at : at + together]) for at in range(0, len(records), together)]
for one in sent:
    one.get()
"""


def mosquitto_bridge(directory: Path, server: Server, rows: int) -> float:
    """Records/s of a bridge from its start to the last arrival; the backlog lies in the broker's own database."""
    address = own_address()
    configuration = directory / "mosquitto.conf"
    nowhere = (address, 1)
    with _mosquitto(configuration, address, nowhere):
        _publish(address, "v1/devices/me/telemetry", rows)
    started_s = time.monotonic()
    with _mosquitto(configuration, address, (server.host, server.port)):
        _, last_s = server.wait(rows, PATIENCE_S)
    return rows / (last_s - started_s)


@contextmanager
def _mosquitto(configuration: Path, address: str, bridged_to: tuple[str, int] | None) -> Iterator[None]:
    lines = [
        f"listener {PORT} {address}",
        "allow_anonymous true",
        "persistence true",
        f"persistence_location {configuration.parent}/",
        "max_queued_messages 0",
        "max_inflight_messages 20",
        "user root" if os.geteuid() == 0 else "",
    ]
    if bridged_to is not None:
        lines += [
            "connection up",
            f"address {bridged_to[0]}:{bridged_to[1]}",
            "topic v1/devices/me/telemetry out 1",
            f"remote_username {TOKEN}",
            "remote_clientid bridge",
            "cleansession false",
            "try_private false",
            "notifications false",
            "restart_timeout 1",
        ]
    configuration.write_text("\n".join(lines) + "\n")
    with (configuration.parent / "mosquitto.log").open("ab") as log:
        process = subprocess.Popen(["mosquitto", "-c", configuration], stdout=log, stderr=log)
    try:
        wait_until(lambda: _listens(address), 10, "mosquitto listens")
        yield
    finally:
        process.terminate()
        process.wait(30)


def _listens(address: str) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex((address, PORT)) == 0


def _publish(address: str, topic: str, rows: int) -> None:
    """At QoS 1, all of them acknowledged."""
    client = Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(100)
    client.connect(address, PORT)
    client.loop_start()
    sent: list[MQTTMessageInfo] = [client.publish(topic, record(number), qos=1) for number in range(rows)]
    for one in sent:
        one.wait_for_publish(PATIENCE_S)
    client.disconnect()
    client.loop_stop()


def tb_mqtt_client(directory: Path, server: Server, rows: int, together: int = 100) -> float:
    """Records/s from the first call to the last arrival; connected before, the records parsed and in memory."""
    (directory / "records").write_text("\n".join(record(number) for number in range(rows)))
    arguments = [server.host, str(server.port), TOKEN, directory / "records", str(together)]
    command = [CLIENTS / "bin" / "python", "-P", "-c", _SDK, *arguments]
    log_path = directory / "sdk.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=directory)
    assert process.stdin is not None
    wait_until(lambda: "connected\n" in log_path.read_text(), 30, "the client is connected")
    started_s = time.monotonic()
    process.stdin.write(b"\n")
    process.stdin.close()
    try:
        _, last_s = server.wait(rows, PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    return rows / (last_s - started_s)


def thingsboard_gateway(directory: Path, server: Server, rows: int) -> float:
    """Records/s from the first message into its MQTT connector to the last arrival; SQLite storage."""
    address = own_address()
    (directory / "config").mkdir()
    for name, content in _gateway_files(server, address, directory).items():
        (directory / "config" / name).write_text(json.dumps(content))
    own = {"PATH": f"{CLIENTS / 'bin'}:{os.environ['PATH']}", "HOME": str(directory)}
    with _mosquitto(directory / "mosquitto.conf", address, None), (directory / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [CLIENTS / "bin" / "thingsboard-gateway"],
            cwd=directory,
            env={**own, "TB_GW_CONFIG_DIR": f"{directory / 'config'}/"},
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for_subscriber(address, server)
            server.reset()
            started_s = time.monotonic()
            _publish(address, "data", rows)
            _, last_s = server.wait(rows, PATIENCE_S)
        finally:
            process.kill()
            process.wait()
    return rows / (last_s - started_s)


def _wait_for_subscriber(address: str, server: Server) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    before = server.received()
    while server.received() <= before + 5:  # its own statistics are some
        assert time.monotonic() < deadline_s, "it does not take messages"
        _publish(address, "data", 10)
        time.sleep(1.0)
    time.sleep(3.0)


def _gateway_files(server: Server, address: str, directory: Path) -> dict[str, Any]:
    expression = {"deviceNameExpressionSource": "constant", "deviceNameExpression": "one"}
    profile = {"deviceProfileExpressionSource": "constant", "deviceProfileExpression": "default"}
    keys = ("co2", "temperature", "humidity", "pressure", "n")
    converter = {
        "type": "json",
        "deviceInfo": {**expression, **profile},
        "timeout": 60_000,
        "attributes": [],
        "timeseries": [{"type": "string", "key": key, "value": f"${{values.{key}}}"} for key in keys],
    }
    broker = {"host": address, "port": PORT, "clientId": "gw", "version": 5, "security": {"type": "anonymous"}}
    broker |= {"maxMessageNumberPerWorker": 10, "maxNumberOfWorkers": 100, "sendDataOnlyOnChange": False}
    thingsboard = {
        "host": server.host,
        "port": server.port,
        "security": {"type": "accessToken", "accessToken": TOKEN},
        "remoteShell": False,
        "remoteConfiguration": False,
        "statistics": {"enable": False},
        "deviceFiltering": {"enable": False},
        "maxPayloadSizeBytes": 60_000,
        "minPackSendDelayMS": 10,
        "minPackSizeToSend": 500,
        "checkConnectorsConfigurationInSeconds": 60,
        "handleDeviceRenaming": False,
        "qos": 1,
        "reportStrategy": {"type": "ON_RECEIVED"},
        "checkingDeviceActivity": {"checkDeviceInactivity": False},
    }
    storage = {"type": "sqlite", "data_file_path": f"{directory}/storage.db", "max_read_records_count": 1000}
    return {
        "tb_gateway.json": {
            "thingsboard": thingsboard,
            "storage": storage,
            "grpc": {"enabled": False},
            "connectors": [{"type": "mqtt", "name": "inlet", "configuration": "mqtt.json"}],
        },
        "mqtt.json": {
            "broker": broker,
            "mapping": [{"topicFilter": "data", "subscriptionQos": 1, "converter": converter}],
            "requestsMapping": {},
        },
        "logs.json": {"version": 1, "root": {"level": "INFO"}},
    }
