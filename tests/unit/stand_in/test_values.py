"""How the stand-in reads payloads and types values, by the table that was run against the real parser."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.simulator.thingsboard import lenient_json, payloads
from teg.simulator.thingsboard.lenient_json import NotJson, NumberText
from teg.simulator.thingsboard.payloads import BadPayload, ConversionFailed
from teg.simulator.thingsboard.telemetry_store import TelemetryStore
from teg.simulator.thingsboard.typing_rules import SKIPPED, typed


def stored(payload: bytes | str) -> Any:
    """The one value of `{"ts": 5, "values": {"a": ...}}` with this text as value."""
    raw = payload.encode() if isinstance(payload, str) else payload
    store = TelemetryStore()
    store.store(b'{"ts": 5, "values": {"a": ' + raw + b"}}", 0)
    return store.points().get(("a", 5), SKIPPED)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True),
        ('"true"', "true"),
        ("5", 5),
        ("-5", -5),
        ("-0", 0),
        ("1e3", 1000),
        ("1.5e3", 1500),
        ("1E+2", 100),
        ("1.0", 1.0),
        ("9999999.0", 9999999.0),
        ("10000000.0", 10_000_000),
        ("-10000000.0", -10_000_000),
        ("12345678.5", 12345678.5),
        ('"12345678.0"', 12345678),
        ("123456789.0000000000000001", 123456789),
        ("-0.0", -0.0),
        ("0.0009", 0.0009),
        ("0.000000000000001", 0.000000000000001),
        ("0.0000000000000001", "0.00000000000000010"),
        ("12345678901234567168.0", "12345678901234567000"),
        ("1.2e20", "120000000000000000000"),
        ("8.1e21", "8100000000000000000000"),
        ("9223372036854775807.0", "9223372036854776000"),
        ("1e18", 10**18),
        ("0.1", 0.1),
        ("1.5e-5", 1.5e-5),
        ("0.1234567890123456", 0.1234567890123456),
        ("0.30000000000000004", "0.30000000000000004"),
        ("0.12345678901234567", "0.12345678901234567"),
        ("1.00000000000000000", "1.00000000000000000"),
        ("1e-17", "0.00000000000000001"),
        ("2.2204460492503131e-16", "0.00000000000000022204460492503131"),
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", "9223372036854775808"),
        ("-9223372036854775808", -9223372036854775808),
        ("12345678901234567890", "12345678901234567890"),
        ("1e400", "1" + "0" * 400),
        ('"0123"', 123),
        ('"1.50"', 1.5),
        ('".5"', 0.5),
        ('"-.5"', -0.5),
        ('"-7"', -7),
        ('"12345678901234567890"', "12345678901234567890"),
        ('"1e5"', "1e5"),
        ('"+5"', "+5"),
        ('"5."', "5."),
        ('" 5"', " 5"),
        ('"0x1F"', "0x1F"),
        ('""', ""),
        ('"-"', "-"),
        ('"."', "."),
        ('"1.2.3"', "1.2.3"),
        ('"1.10"', 1.1),
        ("null", SKIPPED),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
        ('{"b": [1, 1.5, 1e400, 0.30000000000000004]}', {"b": [1, 1.5, float("inf"), 0.1 + 0.2]}),
        ('[1, "2"]', [1, "2"]),
    ],
)
def test_typing_table(written: str, value: Any) -> None:
    result = stored(written)
    assert (type(result), result) == (type(value), value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_number_beyond_64_bits_stays_one(number: float) -> None:
    """However it is written: it comes back from the rule chain as text."""
    for written in (repr(number), format(number, ".1f"), format(number, ".17g"), f'"{number:.1f}"'):
        value = stored(written)
        assert isinstance(value, str) or abs(value) <= 2**63


@given(st.floats(min_value=1e7, max_value=9e18))
def test_no_whole_number_from_ten_million_on_stays_a_double(number: float) -> None:
    value = stored(f"{number:.1f}")
    assert type(value) is (int if float(f"{number:.1f}").is_integer() else float)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_python_floats_stay_numbers_or_become_their_own_digits(number: float) -> None:
    """As a double, as a long of the same digits if it is whole and has an exponent, or as text."""
    assert float(stored(repr(number))) == number


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_fast_and_exact_reading_agree(value: Any) -> None:
    """What is not delicate is read by orjson alone; the slow reader must say the same of it."""
    text = json.dumps({"a": value})
    slow = lenient_json.parse(text)["a"]
    fast = payloads.parse_exact(text.encode())["a"]
    assert repr(typed(slow)) == repr(typed(fast))


@given(st.dictionaries(st.text(), st.integers() | st.booleans() | st.lists(st.text(), max_size=3), max_size=3))
def test_lenient_parser_reads_all_that_the_strict_one_reads(value: dict[str, Any]) -> None:
    assert typed(lenient_json.parse(json.dumps(value))) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: 1}", {"a": "1"}),
        ("{'a': 'it\\'s'}", {"a": "it's"}),
        ('{"a" = 1; "b" => 2}', {"a": "1", "b": "2"}),
        ('# comment\n{/* here */ "a": // there\n 1}', {"a": "1"}),
        ('{"a": TRUE, "b": Null}', {"a": True, "b": None}),
        ("{a: bare word}", None),
        ("{a: bare}", {"a": "bare"}),
        ("[1,,2]", ["1", None, "2"]),
        ("[1,]", ["1", None]),
        ("\ufeff[]", []),
        (r'["\u0041\n\/"]', ["A\n/"]),
        (r'["\ud800"]', ["?"]),
        (r'["\ud83d\ude00"]', ["😀"]),
        ("007", "007"),
        ("{a: 1, a: 2}", {"a": "2"}),
    ],
)
def test_lenient_forms(text: str, value: Any) -> None:
    if value is None:
        with pytest.raises(NotJson):
            lenient_json.parse(text)
    else:
        assert lenient_json.parse(text) == value


def test_numbers_and_words_are_told_apart() -> None:
    values = lenient_json.parse("[1, 01, 1.5e3, 1., .5, NaN]")
    assert [type(value) for value in values] == [NumberText, str, NumberText, str, str, str]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[",
        "{a}",
        "{a:}",
        '{"a": 1,}',
        '{"a" 1}',
        '["a',
        '["\\x"]',
        '["\\u12"]',
        "[1] 2",
        "[1}",
        "{1]",
        "}",
    ],
)
def test_even_the_lenient_parser_gives_up(text: str) -> None:
    with pytest.raises(NotJson):
        lenient_json.parse(text)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_limit(opening: str) -> None:
    """300 levels were seen to pass on the real server; our own limit lies above that."""
    closing = "]" if opening == "[" else "}"
    assert lenient_json.parse(opening * 300 + "[]" + closing * 300)
    with pytest.raises(NotJson, match="levels"):
        lenient_json.parse(opening * 400 + "[]" + closing * 400)


@pytest.mark.parametrize("levels", [250, 300, 420, 30_000])
def test_nesting_limit_of_payloads(levels: int) -> None:
    payload = b'{"a": ' + b"[" * levels + b"]" * levels + b"}"
    if levels <= 300:
        assert len(payloads.check_telemetry(payload)) == 1
    else:
        with pytest.raises(BadPayload, match="levels"):
            payloads.check_telemetry(payload)


def test_many_flat_elements_are_not_deep() -> None:
    flat = orjson.dumps([{"ts": ts, "values": {"a": [[], []], "b": "[[[[{{{{"}} for ts in range(500)])
    assert len(payloads.check_telemetry(flat)) == 500


@pytest.mark.parametrize(
    ("payload", "records"),
    [
        (b'{"a": 1}', [(99, {"a": 1})]),
        (b'{"ts": 5, "values": {"a": 1}, "metadata": {}}', [(5, {"a": 1})]),
        (b'{"ts": 5, "temp": 2}', [(99, {"ts": 5, "temp": 2})]),
        (b'{"values": {"a": 1}}', [(99, {"values": {"a": 1}})]),
        (b'[{"a": 1}, {"ts": "5", "values": {}}]', [(99, {"a": 1}), (5, {})]),
        (b'{"ts": 5.99, "values": {}}', [(5, {})]),
        (b'{"ts": 1e3, "values": {}}', [(1000, {})]),
        (b'{"ts": -1, "values": {}}', [(-1, {})]),
        (b'{"ts": [5], "values": {"a": 1}}', [(5, {"a": 1})]),
        (b'{"ts": ["5"], "values": {}}', [(5, {})]),
        (b"[]", []),
        (b"{}", [(99, {})]),
    ],
)
def test_records_of_a_payload(payload: bytes, records: list[tuple[int, dict[str, Any]]]) -> None:
    elements = payloads.check_telemetry(payload)
    assert len(elements) == len(records)
    assert list(payloads.records_in(payload, 99)) == records
    assert payloads.count_points(elements) == sum(len(values) for _, values in records)


@pytest.mark.parametrize("ts", [b"null", b'"noon"', b'"1.5"', b'""', b"true", b"[]", b"[1, 2]", b"{}", b"NaN"])
def test_ts_that_is_no_number(ts: bytes) -> None:
    with pytest.raises(ConversionFailed):
        payloads.check_telemetry(b'{"ts": ' + ts + b', "values": {}}')


@pytest.mark.parametrize("payload", [b"", b"null", b"1", b'"a"', b"[1]", b"[[]]", b'{"ts": 1, "values": 1}', b"{,}"])
def test_bad_telemetry(payload: bytes) -> None:
    with pytest.raises(BadPayload):
        payloads.check_telemetry(payload)


def test_store_folds_late_and_once() -> None:
    store = TelemetryStore()
    store.store(b'[{"ts": 5, "values": {"a": 1}}, {"ts": 4, "values": {"a": 2}}]', 0)
    assert store.latest("a") == 1
    store.store(b'{"ts": 5, "values": {"a": 1, "b": null}}', 0)
    store.store_record(5, {"a": True})
    assert store.points() == {("a", 4): 2, ("a", 5): True}
    assert (store.duplicates(), store.conflicts()) == (1, [("a", 5)])
    assert (store.distinct(), store.per_key(), store.latest_values()) == (2, {"a": 2}, {"a": True})
    assert store.latest("none") is None


def test_what_was_accepted_is_not_yet_stored() -> None:
    store = TelemetryStore()
    store.accept(b'[{"ts": 5, "values": {"a": 1}}, {"ts": 4, "values": {"a": 2}}]', 0, 2)
    assert (store.publishes, store.records_received, store.bytes_received) == (1, 2, 62)
    assert store.records() == [(5, {"a": 1}), (4, {"a": 2})]
    assert store.points() == {}


def test_an_older_backup_takes_back_what_was_stored_since() -> None:
    store = TelemetryStore()
    store.store_record(5, {"a": 1})
    backup = store.backup()
    store.store_record(6, {"a": 2, "b": 3})
    store.store_record(5, {"a": 7})
    store.restore(backup)
    assert (store.points(), store.latest_values()) == ({("a", 5): 1}, {"a": 1})
    store.store_record(6, {"a": 2})
    assert store.points() == {("a", 5): 1, ("a", 6): 2}
    store.restore(backup)
    assert store.points() == {("a", 5): 1}
