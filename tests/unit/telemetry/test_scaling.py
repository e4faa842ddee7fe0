"""Numbers beyond what ThingsBoard keeps: said once a key, scaled on the way, archived as written."""

import logging
from typing import Any

import orjson
import pytest

from teg.domain.telemetry.scaling import Numbers
from teg.simulator.thingsboard.typing_rules import typed


def record(**values: Any) -> bytes:
    return orjson.dumps({"ts": 1_767_225_600_000, "values": values})


def test_named_keys_are_multiplied_and_nothing_else() -> None:
    numbers = Numbers({"column": 1e-19, "n": 0.5})
    sent = orjson.loads(numbers.scaled(record(column=2.5e21, n=3, note="column", flag=True, other=7)))["values"]
    assert sent == {"column": 250.0, "n": 1.5, "note": "column", "flag": True, "other": 7}
    untouched = record(other=1.5)
    assert numbers.scaled(untouched) is untouched


def test_what_is_scaled_is_a_number_to_the_server() -> None:
    numbers = Numbers({"x": 1e-19})
    for value in (1.234567890123456e21, 3e19, 7.7e18, 1e25):
        sent = orjson.loads(numbers.scaled(record(x=value)))["values"]["x"]
        assert isinstance(typed(sent), int | float)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"ts":1,"values":{"x":12345678901234567890}}', "larger than 2^63"),
        ('{"ts":1,"values":{"x":12345678901234567168.0}}', "larger than 2^63"),
        ('{"ts":1,"values":{"x":1.2e20}}', "larger than 2^63"),
        ('{"ts":1,"values":{"x":-8.1E+21}}', "larger than 2^63"),
        ('{"ts":1,"values":{"x":1e-18}}', "smaller than 1e-15"),
        ('{"ts":1,"values":{"x":0.5}}', ""),
        ('{"ts":1,"values":{"x":9223372036854775807}}', "larger than 2^63"),
        ('{"ts":1,"values":{"x":1234567890123456789}}', ""),
        ('{"ts":1,"values":{"x":1.5e3}}', ""),
        ('{"ts":1,"values":{"x":0e0}}', ""),
        ('{"ts":1,"values":{"x":"1e30"}}', ""),
        ('{"ts":1,"values":{"x":{"a":1e30}}}', ""),
        ("no JSON 1e30", ""),
    ],
)
def test_what_the_server_cannot_keep_is_said_with_the_remedy(
    text: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    Numbers({}).notice(text)
    assert (said in caplog.text) if said else not caplog.text
    assert ("TEG_TELEMETRY_SCALE=x:" in caplog.text) is bool(said)


def test_each_key_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    numbers = Numbers({})
    for _ in range(5):
        numbers.notice(record(a=1e21, b=1e22))
    assert caplog.text.count("larger than 2^63") == 2


def test_a_key_that_is_scaled_into_reach_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    Numbers({"a": 1e-19}).notice(record(a=1e21))
    assert not caplog.text
