"""Inbox rows: accepted, set right so that ThingsBoard keeps numbers numbers, or set aside with the reason."""

import json
import math
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from teg.domain.telemetry.validation import MAX_RECORD_BYTES, Record, SetAside, is_log, validate
from teg.simulator.thingsboard.payloads import check_telemetry, records_in
from teg.simulator.thingsboard.typing_rules import typed

TS = 1_767_225_600_123


def row(message: str, row_type: str = "measurement") -> Record | SetAside:
    return validate(7, bytearray(row_type.encode()), bytearray(message.encode("utf-8", "surrogatepass")))


def accepted(message: str) -> Record:
    verdict = row(message)
    assert isinstance(verdict, Record), verdict
    return verdict


def reason(message: str) -> str:
    verdict = row(message)
    assert isinstance(verdict, SetAside), verdict
    return verdict.reason


def sent(message: str) -> str:
    record = accepted(message)
    return record.message if record.payload is None else record.payload


def stored(message: str) -> tuple[int, dict[str, Any]]:
    """What ThingsBoard stores of the row: (ts, key -> typed value), by the stand-in's own rules."""
    payload = f"[{sent(message)},{sent(message)}]".encode()
    check_telemetry(payload)
    first, second = records_in(payload, 0)
    assert first == second
    return first[0], {key: typed(value) for key, value in first[1].items()}


def with_value(literal: str) -> str:
    return f'{{"ts": {TS}, "values": {{"x": {literal}}}}}'


def test_a_usual_row_is_published_as_the_controller_wrote_it() -> None:
    text = f'{{ "ts":{TS},  "values": {{"co2": 412.5, "ok": true, "note": "dry", "n": null}}, "extra": [1] }}'
    assert validate(7, bytearray(b"measurement"), bytearray(text.encode())) == Record(7, TS, 4, text, None, False)


def test_the_archive_keeps_the_original_of_what_was_set_right() -> None:
    text = with_value("0.30000000000000004")
    record = accepted(text)
    assert (record.message, record.payload) == (text, f'{{"ts":{TS},"values":{{"x":0.3}}}}')


# --- set aside


NOT_JSON = ["", " ", "hello", "{", '{"ts":1,}', "{'ts': 1}", "\ufeff{}", '{"ts": 1} x', '{"a": tru}', '{"a": 01}']
BAD_TS = [
    ('"1767225600123"', "'ts' is not a number"),
    ("true", "'ts' is not a number"),
    ("null", "'ts' is not a number"),
    ("[]", "'ts' is not a number"),
    ("NaN", "'ts' is not a number"),
    ("-Infinity", "'ts' is not a number"),
    ("1e400", "'ts' is not a number"),
    ("-1767225600123", "negative, in seconds"),
    ("1767225600", "negative, in seconds"),
    ("0", "negative, in seconds"),
    ("99999999999", "negative, in seconds"),
    ("253402300800000", "after the year 9999"),
    ("9" * 5000, "'ts' is not a number"),
]
BAD_VALUES = [
    (f'{{"ts": {TS}}}', "'values' is missing"),
    (f'{{"ts": {TS}, "values": {{}}}}', "'values' is empty"),
    (f'{{"ts": {TS}, "values": [1]}}', "'values' is not an object"),
    (f'{{"ts": {TS}, "values": null}}', "'values' is not an object"),
    (f'{{"ts": {TS}, "values": "x"}}', "'values' is not an object"),
    (f'{{"ts": {TS}, "values": {{"": 1}}}}', "empty or blank"),
    (f'{{"ts": {TS}, "values": {{"a": 1, " \\t": 1}}}}', "empty or blank"),
    (f'{{"ts": {TS}, "values": {{"{"k" * 256}": 1}}}}', "longer than 255"),
    (f'{{"ts": {TS}, "values": {{"{chr(0x1F321) * 128}": 1}}}}', "longer than 255"),
    (f'{{"ts": {TS}, "values": {{"<script>": 1}}}}', "markup"),
    (f'{{"ts": {TS}, "values": {{"\\u003cb>": 1}}}}', "markup"),
    ('{"values": {"a": 1}}', "'ts' is missing"),
    ("[]", "a JSON list"),
    ("7", "a JSON int"),
    ("null", "a JSON NoneType"),
]


@pytest.mark.parametrize("message", NOT_JSON)
def test_what_is_no_json_is_set_aside(message: str) -> None:
    assert "not JSON" in reason(message)


@pytest.mark.parametrize(("ts", "expected"), BAD_TS, ids=[ts[:20] for ts, _ in BAD_TS])
def test_a_ts_that_is_no_time_in_milliseconds_is_set_aside(ts: str, expected: str) -> None:
    assert expected in reason(f'{{"ts": {ts}, "values": {{"a": 1}}}}')


@pytest.mark.parametrize(("message", "expected"), BAD_VALUES, ids=[message[:50] for message, _ in BAD_VALUES])
def test_values_that_the_server_refuses_or_drops_are_set_aside(message: str, expected: str) -> None:
    assert expected in reason(message)


def test_keys_at_the_limit_and_signs_in_keys_are_fine() -> None:
    accepted(f'{{"ts": {TS}, "values": {{"{"k" * 255}": 1}}}}')
    accepted(f'{{"ts": {TS}, "values": {{"T<0": 1, "a > b": 2, "µg/m³": 3, "a b": 4}}}}')


def test_a_row_over_the_payload_limit_is_set_aside_whole() -> None:
    text = with_value(f'"{"x" * 200_000}"')
    verdict = row(text)
    assert isinstance(verdict, SetAside)
    assert "over the limit of 59998" in verdict.reason
    assert verdict.message == text.encode()


def test_the_size_limit_is_exact_and_counts_bytes() -> None:
    room = MAX_RECORD_BYTES - len(with_value('""'))
    accepted(with_value(f'"{"x" * room}"'))
    assert "over the limit" in reason(with_value(f'"{"x" * (room + 1)}"'))
    assert "over the limit" in reason(with_value(f'"{"ü" * (room // 2 + 1)}"'))


def test_what_grows_over_the_limit_when_set_right_is_set_aside() -> None:
    numbers = ",".join(f'"k{n}": 1e300' for n in range(1000))
    assert "over the limit" in reason(f'{{"ts": {TS}, "values": {{{numbers}}}}}')


@pytest.mark.parametrize("levels", [5_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_set_aside(opening: str, closing: str, levels: int) -> None:
    assert "nested" in reason(with_value(opening * levels + "1" + closing * levels))


def test_nesting_up_to_the_limit_is_accepted() -> None:
    accepted(with_value("[" * 30 + "]" * 30))
    assert "deeper than 32" in reason(with_value("[" * 31 + "]" * 31))
    flat = ",".join("[]" for _ in range(100))
    assert accepted(with_value(f"[{flat}]")).payload is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (None, "message is NULL"),
        (7, "message is a int"),
        (2.5, "message is a float"),
        (b'{"ts": 1767225600123, "values": {"a": 1}}', "message is a BLOB"),
        (bytearray(b'{"a": "\xff"}'), "not UTF-8 text: invalid start byte at byte 7"),
        (bytearray(b'{"ts": 1767225600123, "values": {"a": "\xed\xa0\x80"}}'), "not UTF-8"),
        (bytearray(b'{"ts": 1767225600123, "values": {"a": 1}}\x00'), "not JSON"),
        (bytearray(b'{"ts": 1767225600123, "values": {"a": "\x00"}}'), "not JSON"),
    ],
)
def test_what_sqlite_may_hold_besides_text_is_set_aside(message: Any, expected: str) -> None:
    verdict = validate(7, None, message)
    assert isinstance(verdict, SetAside)
    assert expected in verdict.reason


@pytest.mark.parametrize("row_type", [None, 7, 2.5, b"blob", bytearray(b"\xff\xfe"), bytearray(b"x" * 10_000)])
def test_odd_types_are_no_logs_and_hold_nothing_up(row_type: Any) -> None:
    good = validate(7, row_type, bytearray(with_value("1").encode()))
    assert isinstance(good, Record)
    assert not good.transient
    bad = validate(7, row_type, bytearray(b"nothing"))
    assert isinstance(bad, SetAside)
    assert len(bad.type) <= 200


@pytest.mark.parametrize(
    ("row_type", "expected"),
    [
        ("log", True),
        ("log_info", True),
        ("log_", True),
        ("catalog", False),
        ("logs", False),
        ("LOG", False),
        ("", False),
    ],
)
def test_logs_are_told_by_the_whole_word_or_the_prefix(row_type: str, expected: bool) -> None:
    assert is_log(bytearray(row_type.encode())) is expected


# --- set right


SET_RIGHT = [
    ("5", 5),
    ("-0", 0),
    ("1e3", 1000),
    ("1.0", 1.0),
    ("1.5e-5", 1.5e-5),
    ("0.1234567890123456", 0.1234567890123456),
    ("0.30000000000000004", 0.3),
    ("0.12345678901234567", 0.123456789012346),
    ("1e-17", 0.0),
    ("2.2204460492503131e-16", 0.0),
    ("100000e-17", 1e-12),
    ("1.00000000000000000000", 1.0),
    ("123456789.12345678901234567", 123456789.12345679),
    ("12345678901234567.25", 12345678901234568.0),
    ("9007199254740993", 9007199254740993),
    ("9223372036854775807", 9223372036854775807),
    ("-9223372036854775808", -9223372036854775808),
    ("9223372036854775808", 9.223372036854775808e18),
    ("12345678901234567890", 12345678901234567890.0),
    ("1.2e20", 1.2e20),
    ("1e300", 1e300),
    ("-1.7976931348623157e308", -1.7976931348623157e308),
    ("5e-324", 0.0),
    ("1e-999999999999999999999", 0.0),
    ("0e-500", 0.0),
]


@pytest.mark.parametrize(("literal", "expected"), SET_RIGHT, ids=[literal for literal, _ in SET_RIGHT])
def test_a_number_is_stored_as_a_number(literal: str, expected: float) -> None:
    ts, values = stored(with_value(literal))
    assert (ts, values["x"]) == (TS, expected)
    assert not isinstance(values["x"], str)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "-1e999999999999999999", "9" * 5000])
def test_what_is_no_number_at_all_is_left_out_and_the_rest_goes(literal: str) -> None:
    assert stored(f'{{"ts": {TS}, "values": {{"x": {literal}, "y": 2}}}}') == (TS, {"y": 2})
    assert "no value is left" in reason(with_value(literal))


def test_nan_inside_of_json_values_becomes_null() -> None:
    assert stored(with_value('{"a": [NaN, 1, -Infinity], "b": "NaN"}')) == (
        TS,
        {"x": {"a": [None, 1, None], "b": "NaN"}},
    )


def test_nan_beside_the_values_never_reaches_the_server() -> None:
    assert "NaN" not in sent(f'{{"ts": {TS}, "values": {{"x": 1}}, "extra": NaN}}')


def test_text_that_only_looks_like_a_number_of_concern_is_left_alone() -> None:
    text = f'{{"ts": {TS}, "values": {{"id": "12345678901234567890", "hex": "0e1", "word": "NaN"}}}}'
    assert sent(text) == text


@pytest.mark.parametrize("ts", ["1767225600123.9", "1.7672256001239e12", "1767225600123.00000000000000000000"])
def test_decimals_of_ts_are_cut(ts: str) -> None:
    record = accepted(f'{{"ts": {ts}, "values": {{"a": 1}}}}')
    assert (record.ts_ms, record.payload) == (TS, f'{{"ts":{TS},"values":{{"a":1}}}}')


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_kept() -> None:
    """Gson takes both; the server's database cannot hold the half, and orjson refuses it."""
    assert stored(with_value(r'"a\ud800b"')) == (TS, {"x": "a\ufffdb"})
    assert stored(f'{{"ts": {TS}, "values": {{"k\\udfff": 1}}}}') == (TS, {"k\ufffd": 1})
    assert accepted(with_value(r'"\ud83c\udf21"')).payload is None


def test_of_duplicate_keys_the_last_one_counts() -> None:
    assert stored(f'{{"ts": 1, "ts": {TS}, "values": {{"x": 1, "x": 2}}}}') == (TS, {"x": 2})


def test_points_count_what_is_sent() -> None:
    assert accepted(f'{{"ts": {TS}, "values": {{"a": 1, "b": NaN, "c": 3}}}}').points == 2


# --- whatever comes


numbers = st.one_of(
    st.floats().map(repr).map(lambda text: {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)),
    st.integers().map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?", fullmatch=True),
)


@given(numbers)
@example("9.223372036854775807e18")
@example("-9223372036854775808.0")
@example("0.00000000000000010")
@example("0E20")
@example("0e-20")
@example("10e17")
@settings(max_examples=1500)
def test_every_number_is_stored_as_that_number_or_left_out(literal: str) -> None:
    verdict = row(f'{{"ts": {TS}, "values": {{"x": {literal}, "y": 0}}}}')
    assert isinstance(verdict, Record)
    meant = float(literal)
    values = stored(verdict.message)[1]
    if math.isfinite(meant):
        assert isinstance(values["x"], int | float), values
        assert math.isclose(values["x"], meant, rel_tol=1e-12, abs_tol=1e-15)
    else:
        assert "x" not in values


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
some_json = st.one_of(
    json_values,
    st.fixed_dictionaries({"ts": json_values, "values": json_values}),
    st.fixed_dictionaries({"ts": st.integers(0, 2**55), "values": st.dictionaries(st.text(), json_values, max_size=5)}),
)


@given(some_json, st.booleans())
@settings(max_examples=800)
def test_whatever_json_comes_the_server_takes_what_we_accept(body: Any, ascii_only: bool) -> None:
    text = json.dumps(body, ensure_ascii=ascii_only)
    verdict = validate(7, None, bytearray(text.encode("utf-8", "surrogatepass")))
    if isinstance(verdict, SetAside):
        assert verdict.reason
        return
    payload = f"[{verdict.message if verdict.payload is None else verdict.payload}]".encode()
    check_telemetry(payload)
    [(ts, values)] = records_in(payload, 0)
    assert ts == verdict.ts_ms
    for key, value in values.items():
        meant = body["values"].get(key)
        if isinstance(meant, int | float) and not isinstance(meant, bool):
            assert isinstance(typed(value), int | float)


@given(st.binary() | st.text().map(str.encode))
@settings(max_examples=500)
def test_whatever_bytes_come_nothing_is_raised(message: bytes) -> None:
    assert validate(7, message, bytearray(message)) is not None
    assert isinstance(validate(7, message, message), SetAside)


def test_a_corrected_payload_is_strict_json() -> None:
    payload = accepted(f'{{"ts": {TS}, "values": {{"a": NaN, "b": 1e25, "ü\\n": "x\\u2028", "d": [NaN]}}}}').payload
    assert payload is not None
    assert orjson.loads(payload)["values"] == {"b": 1e25, "ü\n": "x\u2028", "d": [None]}


def test_the_memory_for_known_keys_is_bounded() -> None:
    """300 records of ten thousand different keys each took 94 MB."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(40):
            keys = ",".join(f'"k{number}-{key}":1' for key in range(3000))
            assert isinstance(validate(1, None, bytearray(f'{{"ts":{TS},"values":{{{keys}}}}}'.encode())), Record)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5_000_000
