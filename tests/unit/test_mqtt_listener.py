"""The listener: what the server sends becomes a task, a log line, or nothing; never an exception, never a wait."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers import mqtt_listener
from producers.mqtt_listener import SHOWN_BYTES, MqttListener

ATTRIBUTES = "v1/devices/me/attributes"
RPC = "v1/devices/me/rpc/request/"
TASKS = ("handle_rpc", "refuse_rpc", "handle_attribute_push", "synchronise", "publish_records")


@pytest.fixture
def enqueued(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would have been put into the queue."""
    calls: list[tuple[Any, ...]] = []
    for name in TASKS:
        monkeypatch.setattr(mqtt_listener, name, lambda *arguments, name=name: calls.append((name, *arguments)))
    return calls


@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [
        (f"{RPC}7", b'{"method":"ping","params":{"n":1}}', [("handle_rpc", 7, "ping", {"n": 1})]),
        (f"{RPC}0", b'{"method":"ping"}', [("handle_rpc", 0, "ping", None)]),
        (ATTRIBUTES, b'{"b":1,"a":2}', [("handle_attribute_push", ["a", "b"], [])]),
        (ATTRIBUTES, b'{"deleted":["a"]}', [("handle_attribute_push", [], ["a"])]),
        (ATTRIBUTES, b"[]", []),
        ("v1/devices/me/attributes/response/99", b'{"shared":{}}', []),
        (f"{RPC}x", b'{"method":"ping"}', []),
        ("other", b"\xff", []),
    ],
)
def test_each_message_becomes_its_task(
    enqueued: list[tuple[Any, ...]], topic: str, payload: bytes, expected: list[tuple[Any, ...]]
) -> None:
    MqttListener().received(topic, payload)
    assert enqueued == expected


def test_a_call_that_cannot_be_read_is_answered_all_the_same(enqueued: list[tuple[Any, ...]]) -> None:
    MqttListener().received(f"{RPC}7", b'{"params":1}')
    assert enqueued == [("refuse_rpc", 7, "RPC request without a method name")]


def test_an_odd_payload_is_shown_cut(enqueued: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture) -> None:
    MqttListener().received(ATTRIBUTES, b"x" * 1_000_000)
    [record] = caplog.records
    assert SHOWN_BYTES <= len(record.getMessage()) < SHOWN_BYTES + 300


def test_a_connection_reads_and_sends_what_waits(enqueued: list[tuple[Any, ...]]) -> None:
    MqttListener().connected()
    assert enqueued == [("publish_records",), ("synchronise",)]


def test_a_queue_that_fails_does_not_end_the_network_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("disk full")

    for name in TASKS:
        monkeypatch.setattr(mqtt_listener, name, broken)
    listener = MqttListener()
    listener.received(f"{RPC}7", b'{"method":"ping"}')
    listener.received(f"{RPC}7", b"")
    listener.connected()
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 3


@given(st.sampled_from([ATTRIBUTES, f"{RPC}1", "x"]) | st.text(), st.binary())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_comes_nothing_escapes(enqueued: list[tuple[Any, ...]], topic: str, payload: bytes) -> None:
    enqueued.clear()
    MqttListener().received(topic, payload)
    assert len(enqueued) <= 1
