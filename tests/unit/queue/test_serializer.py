"""The queue's wire format refuses whatever is not plain JSON of ours."""

import datetime
import enum
import os
import pickle
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from huey.registry import Message
from hypothesis import given
from hypothesis import strategies as st

from tasks.storage import MAX_DEPTH, MAX_MESSAGE_BYTES, PlainSerializer
from teg.domain.errors import Refused

SERIALIZER = PlainSerializer()


NOW = datetime.datetime(2026, 1, 1, 12, 30, 5, 123456)


def message(*args: Any, **fields: Any) -> Message:
    standing: dict[str, Any] = {
        "id": "6f1c",
        "name": "tasks.rpc.handle_rpc",
        "retries": 0,
        "retry_delay": 0,
        "retry_backoff": 0,
        "args": args,
        "kwargs": {},
    }
    return Message(**{**standing, **fields})


def row(**fields: Any) -> bytes:
    """A queued row as a hand could have written it."""
    return orjson.dumps({**orjson.loads(SERIALIZER.serialize(message())), **fields})


class Colour(enum.StrEnum):
    RED = "red"


class Text(str):
    __slots__ = ()


# --- what goes in ------------------------------------------------------------------------------------------


def test_a_message_comes_back_as_it_was() -> None:
    sent = message(7, "ping", {"a": [1, 2.5, None, True, "ü"]}, eta=NOW, expires=10, expires_resolved=NOW, priority=100)
    assert SERIALIZER.deserialize(SERIALIZER.serialize(sent)) == sent


text = st.text(st.characters(exclude_categories=["Cs"]))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner),
    max_leaves=20,
)


@given(st.lists(plain, max_size=4), st.none() | st.datetimes(), st.floats(0, 1e6), st.none() | st.integers(0, 100))
def test_any_plain_message_comes_back_as_it_was(
    args: list[Any], eta: datetime.datetime | None, delay: float, priority: int | None
) -> None:
    sent = message(*args, eta=eta, retry_delay=delay, priority=priority)
    back = SERIALIZER.deserialize(SERIALIZER.serialize(sent))
    assert back == sent
    assert [type(value) for value in back.args] == [type(value) for value in args]


ODD_ARGUMENTS = [
    NOW,
    datetime.date(2026, 1, 1),
    uuid.uuid4(),
    b"bytes",
    bytearray(b"x"),
    (1, 2),
    {1, 2},
    Colour.RED,
    Text("subclass"),
    float("nan"),
    float("inf"),
    2**70,
    "half \ud800 surrogate",
    {1: "key"},
    {Text("key"): 1},
    [[NOW]],
    {"deep": {"deeper": NOW}},
    object(),
    print,
    lambda: None,
    SimpleNamespace(a=1),
]


@pytest.mark.parametrize("argument", ODD_ARGUMENTS, ids=[type(value).__name__ for value in ODD_ARGUMENTS])
def test_an_argument_that_is_not_plain_is_refused(argument: Any) -> None:
    with pytest.raises(Refused):
        SERIALIZER.serialize(message(argument))
    with pytest.raises(Refused):
        SERIALIZER.serialize(message(kwargs={"value": argument}))


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_nesting_has_an_end() -> None:
    assert SERIALIZER.deserialize(SERIALIZER.serialize(message(nested(MAX_DEPTH)))).args == (nested(MAX_DEPTH),)
    for levels in (MAX_DEPTH + 1, 5000):
        with pytest.raises(Refused, match="nested deeper"):
            SERIALIZER.serialize(message(nested(levels)))


def test_a_message_may_be_a_mebibyte_and_no_more() -> None:
    spare = MAX_MESSAGE_BYTES - len(SERIALIZER.serialize(message("")))
    assert len(SERIALIZER.serialize(message("x" * spare))) == MAX_MESSAGE_BYTES
    with pytest.raises(Refused, match="the limit is 1048576"):
        SERIALIZER.serialize(message("x" * (spare + 1)))


@pytest.mark.parametrize("field", ["on_complete", "on_error", "chord_config", "timeout"])
def test_pipelines_chords_and_time_outs_are_refused(field: str) -> None:
    with pytest.raises(Refused, match=field):
        SERIALIZER.serialize(message(**{field: message()}))


@pytest.mark.parametrize("data", [None, 1, "text", {"a": 1}, ("revoke", True), Exception("an error result")])
def test_only_tasks_go_through_the_queue(data: Any) -> None:
    with pytest.raises(Refused, match="only tasks"):
        SERIALIZER.serialize(data)


# --- what comes out ----------------------------------------------------------------------------------------


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(Refused, match="not JSON"):
            SERIALIZER.deserialize(pickle.dumps(Bomb(canary), protocol))
    assert not canary.exists()
    pickle.loads(pickle.dumps(Bomb(canary)))
    assert canary.exists(), "the bomb itself must work, or this test shows nothing"


GARBAGE: list[Any] = [
    b"",
    b"\x00\xff garbage",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"1",
    SERIALIZER.serialize(message(1))[:-5],
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b" " * (MAX_MESSAGE_BYTES + 1),
    row(args=["x" * MAX_MESSAGE_BYTES]),
    "text instead of bytes",
    None,
    5,
    row(surprise=1),
    row(id=None),
    row(id=5),
    row(name=["tasks.rpc.handle_rpc"]),
    row(name=None),
    row(args="abc"),
    row(args={"a": 1}),
    row(args=5),
    row(args=None),
    row(kwargs=[1]),
    row(kwargs=None),
    row(retries="1"),
    row(retries=1.5),
    row(retry_delay="soon"),
    row(retry_delay=None),
    row(priority="high"),
    row(priority=True),
    row(expires="never"),
    row(eta=5),
    row(eta="tomorrow"),
    row(eta="2026-01-01T00:00:00+01:00"),
    row(expires_resolved="2026-13-01T00:00:00"),
    row(expires_resolved=[1]),
    row(on_complete={"name": "tasks.rpc.handle_rpc"}),
    row(on_error=[1]),
    row(chord_config=["a", 1, 2, {}]),
    row(timeout=1),
    row(args=[nested(MAX_DEPTH + 1)]),
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_a_garbage_row_is_refused(data: Any) -> None:
    with pytest.raises(Refused):
        SERIALIZER.deserialize(data)


@given(st.binary())
def test_only_refused_escapes_for_bytes(data: bytes) -> None:
    with pytest.raises(Refused):
        SERIALIZER.deserialize(data)


@given(st.dictionaries(st.sampled_from(Message._fields), plain))
def test_only_refused_escapes_for_odd_fields(fields: dict[str, Any]) -> None:
    try:
        found = SERIALIZER.deserialize(row(**fields))
    except Refused:
        return
    assert SERIALIZER.deserialize(SERIALIZER.serialize(found)) == found
