"""Whatever arrives on a request topic: nothing escapes, one answer for each delivery, and it fits."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.mqtt_listener import MqttListener
from teg.domain.rpc.command_allowlist import parse_command_list
from tests.support.rpc import Rig

METHODS = [
    "list", "ping", "reboot", "shutdown", "exit", "restart_controller", "init_files", "run_command",
    "archive_republish_messages", "archive_discard_messages", "status", "get_logs", "archive_stats", "dead_letters",
    "set_log_level",
]  # fmt: skip
KEYS = [
    "command", "timeout_s", "start_timestamp_ms", "end_timestamp_ms", "source", "lines", "action", "ids", "limit",
    "before_id", "level", "minutes", "name", "args",
]  # fmt: skip
WORDS = ["list", "retry", "drop", "all", "gateway", "controller", "calls", "DEBUG", "info", "say", "", "\0"]
NUMBERS = [0, 1, -1, 61, 1_767_225_600_000, 2_524_637_869_000, 2**53, 2**63, 2**64, 10**400, -(10**30), 0.5, 1e308]

leaves = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(st.characters(), max_size=20)
)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=15,
)
nearly_right = st.dictionaries(
    st.sampled_from(KEYS),
    leaves | st.lists(st.text(max_size=8) | st.integers(0, 9), max_size=4) | anything,
    max_size=5,
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    logging.disable(logging.CRITICAL)
    allowed = parse_command_list(
        '[commands.say]\nargv = ["echo", "{x}"]\nparameters.x = { type = "text", pattern = ".*" }'
    )
    with Rig(tmp_path_factory.mktemp("fuzz") / "gateway.db", run_command=allowed).serving() as rig:
        rig.database.rows("PRAGMA synchronous=OFF")  # thousands of calls; durability has its own tests
        yield rig
    logging.disable(logging.NOTSET)


def deliver(rig: Rig, request_id: int, payload: bytes) -> Any:
    """One delivery on a live session, in a second of its own; returns the one answer."""
    rig.clock.advance(1)
    before = len(rig.session.sent)
    MqttListener().received(f"v1/devices/me/rpc/request/{request_id}", payload)
    answers = rig.session.sent[before:]
    assert [topic for topic, _ in answers] == [f"v1/devices/me/rpc/response/{request_id}"]
    assert rig.session.sizes[-1] <= 60_000
    return answers[0][1]


ids = st.integers(0, 30) | st.integers(-(2**31), 2**31 - 1)
many = settings(max_examples=900)


@many
@given(ids, st.sampled_from(METHODS), nearly_right | anything)
def test_known_methods_with_any_parameters(rig: Rig, request_id: int, method: str, params: Any) -> None:
    payload = json.dumps({"method": method, "params": params}).encode()
    answer = deliver(rig, request_id, payload)
    if method == "ping" and isinstance(answer, str) and not answer.startswith("Error - payload is not JSON"):
        assert answer == "Pong" or answer.startswith("Error - task handle_rpc cannot be queued")


@many
@given(ids, anything, anything)
def test_any_method_with_any_parameters(rig: Rig, request_id: int, method: Any, params: Any) -> None:
    deliver(rig, request_id, json.dumps({"method": method, "params": params}).encode())


@many
@given(ids, st.binary(max_size=300) | anything.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(rig: Rig, request_id: int, payload: bytes) -> None:
    deliver(rig, request_id, payload)


@settings(max_examples=300)
@given(st.integers(0, 3), st.sampled_from(METHODS[2:]), nearly_right, st.integers(2, 4))
def test_redelivery_does_nothing_twice(
    rig: Rig, request_id: int, method: str, params: dict[str, Any], times: int
) -> None:
    """Several deliveries of the same bytes within a minute: several answers, at most one effect."""
    rig.clock.advance(100_000)
    payload = json.dumps({"method": method, "params": params}).encode()
    before = effects(rig)
    for _ in range(times):
        deliver(rig, request_id, payload)
    assert effects(rig) - before <= 1


def effects(rig: Rig) -> int:
    lasting = [asked for asked in rig.archive.asked if asked[0] in ("mark", "discard", "retry", "drop")]
    machine = len(rig.machine.actions) + len(rig.machine.runs)
    return machine + len(lasting) + len(rig.inits) + len(rig.controller.restarts)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"method":"ping","params":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"method":"ping","params":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"method":"ping","params":"' + b"x" * 1_100_000 + b'"}',
        b'{"method":"ping","params":"\\ud800"}',
        b'{"method":"ping","params":NaN}',
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"method":5}',
        b'{"method":""}',
    ],
    ids=["300 deep", "5000 deep", "1 MB", "surrogate", "NaN", "empty", "no UTF-8", "list", "no method", "5", "''"],
)
def test_what_cannot_be_read_or_queued_is_answered_with_the_reason(rig: Rig, payload: bytes) -> None:
    answer = deliver(rig, 7, payload)
    assert answer.startswith("Error - ") and len(answer) < 600
