"""The wire: what the server sends is parsed or refused, what we send is what it reads."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.errors import Refused
from teg.domain.server.wire import (
    ATTRIBUTES,
    AttributePush,
    Attributes,
    RpcRequest,
    encode_attribute_request,
    encode_client_rpc,
    encode_rpc_response,
    encode_telemetry,
    parse_attribute_push,
    parse_attributes,
    parse_message,
)
from teg.simulator.thingsboard.attributes import parse_request
from teg.simulator.thingsboard.payloads import check_telemetry, records_in

RPC = "v1/devices/me/rpc/request/"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(st.integers(-(2**31), 2**31 - 1), st.text(min_size=1), json_values)
def test_calls_are_read_with_any_params(request_id: int, method: str, params: Any) -> None:
    payload = orjson.dumps({"method": method, "params": params})
    assert parse_message(f"{RPC}{request_id}", payload) == RpcRequest(request_id, method, params)


def test_params_that_are_missing_are_none() -> None:
    assert parse_message(f"{RPC}7", b'{"method":"ping"}') == RpcRequest(7, "ping", None)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"ping",
        b"null",
        b"[]",
        b"{}",
        b'{"params":1}',
        b'{"method":""}',
        b'{"method":5}',
        b'{"method":null}',
        b"\xff",
    ],
)
def test_calls_without_a_method_are_refused(payload: bytes) -> None:
    with pytest.raises(Refused):
        parse_message(f"{RPC}7", payload)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "v1/devices/me/rpc/request/",
        f"{RPC}x",
        f"{RPC}7/8",
        f"{RPC}12345678901",
        f"{RPC}7\n",
        f"{RPC}٧",
        "v2/sw/response/1/chunk/0",
    ],
)
def test_topics_that_carry_no_request_are_none_of_ours(topic: str) -> None:
    assert parse_message(topic, b'{"method":"ping"}') is None


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"a":1,"b":{"c":2}}', AttributePush({"a": 1, "b": {"c": 2}}, ())),
        (b'{"deleted":["a","b"]}', AttributePush({}, ("a", "b"))),
        (b'{"a":1,"deleted":["b"]}', AttributePush({"a": 1}, ("b",))),
        (b'{"deleted":"mine"}', AttributePush({"deleted": "mine"}, ())),
        (b'{"deleted":[1,2]}', AttributePush({"deleted": [1, 2]}, ())),
        (b"{}", AttributePush({}, ())),
    ],
)
def test_pushes_of_changes_and_deletions(payload: bytes, expected: AttributePush) -> None:
    assert parse_attribute_push(payload) == expected
    assert parse_message(ATTRIBUTES, payload) == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"{}", Attributes({}, {})),
        (b'{"client":{"a":1}}', Attributes({"a": 1}, {})),
        (b'{"shared":{"a":1},"client":{"b":2}}', Attributes({"b": 2}, {"a": 1})),
    ],
)
def test_sections_of_an_answer_may_be_left_out(payload: bytes, expected: Attributes) -> None:
    assert parse_attributes(payload) == expected


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"shared":[]}', b'{"client":"x"}', b'{"shared":null}'])
def test_an_answer_of_another_shape_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused):
        parse_attributes(payload)


@given(st.sampled_from([ATTRIBUTES, f"{RPC}1"]), st.binary() | json_values.map(orjson.dumps))
def test_whatever_comes_is_parsed_or_refused(topic: str, payload: bytes) -> None:
    try:
        parse_message(topic, payload)
    except Refused as reason:
        assert str(reason)


def test_attribute_requests_are_read_by_the_server_as_meant() -> None:
    assert parse_request(encode_attribute_request(["a", "b"], ["c"])) == (["a", "b"], ["c"])
    assert orjson.loads(encode_attribute_request((), ("c", "d"))) == {"sharedKeys": "c,d"}
    assert encode_attribute_request() == b"{}"


@given(st.integers(0, 2**52), st.dictionaries(st.text(), json_values))
def test_telemetry_is_taken_by_the_server(ts_ms: int, values: dict[str, Any]) -> None:
    payload = encode_telemetry(ts_ms, values)
    check_telemetry(payload)
    [(ts, stored)] = records_in(payload, 0)
    assert ts == ts_ms
    assert stored.keys() == values.keys()


def test_answers_and_questions() -> None:
    assert encode_rpc_response("Pong") == b'{"message":"Pong"}'
    assert encode_client_rpc("getSessionLimits", {}) == b'{"method":"getSessionLimits","params":{}}'
