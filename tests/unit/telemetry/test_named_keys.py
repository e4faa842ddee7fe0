"""Keys are the controller's own: however many it makes up, a few are named and none is remembered for ever."""

import logging

import pytest

from teg.domain.telemetry import scaling
from teg.domain.telemetry.scaling import Numbers


def record(*keys: str) -> str:
    return '{"ts":1,"values":{' + ",".join(f'"{key}":1e30' for key in keys) + "}}"


def test_ever_new_keys_fill_neither_the_log_nor_the_memory(caplog: pytest.LogCaptureFixture) -> None:
    numbers = Numbers({})
    with caplog.at_level(logging.WARNING):
        for row in range(100):
            numbers.notice(record(*(f"k{row}-{number}" for number in range(100))))
    assert len(caplog.records) == scaling.MAX_NAMED + 1
    assert "more keys" in caplog.records[-1].message
    assert len(numbers._said) == scaling.MAX_NAMED


def test_a_key_made_of_newlines_or_of_kilobytes_is_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    numbers = Numbers({})
    numbers.notice(record("a\\n2026 ERROR forged", "x" * 5000))
    assert all("\n" not in entry.message and len(entry.message) < 600 for entry in caplog.records)
    assert len(caplog.records) == 2
