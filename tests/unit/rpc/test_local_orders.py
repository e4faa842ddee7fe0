"""What the console may have the gateway do: two methods of ThingsBoard's, told by their answers."""

from typing import Any

import orjson
import pytest

from teg.domain.rpc.local_orders import encode_order, obey
from tests.support.rpc import FakeArchive


def answer(request: bytes) -> tuple[dict[str, Any], list[bytes]]:
    said: list[bytes] = []
    return orjson.loads(obey(FakeArchive(), request, said.append)), said


def test_dead_letters_are_queued_again() -> None:
    found, _ = answer(encode_order("dead_letters", {"action": "retry", "ids": [1, 2]}))
    assert "dead letters queued again" in found["ok"]


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("dead_letters", {"action": "retry"}, "Dead letters: "),
        ("dead_letters", None, ""),
        ("archive_republish_messages", {"start_timestamp_ms": 5}, "missing 'start_timestamp_ms'"),
        ("reboot", {}, "does not know the order 'reboot'"),
        ("archive_discard_messages", {}, "does not know the order"),
    ],
)
def test_what_is_refused_is_told(method: str, params: Any, expected: str) -> None:
    found, _ = answer(encode_order(method, params))
    assert ("error" in found) == bool(expected)
    assert expected in found.get("error", "")


@pytest.mark.parametrize("request_", [b"", b"hello", b"[]", b"{}", b'{"method": ["dead_letters"]}'])
def test_nonsense_is_refused(request_: bytes) -> None:
    assert "error" in answer(request_)[0]
