"""What the controller's inbox rows are worth: accepted as they are, set right, or set aside with the reason.

The archive keeps a message exactly as the controller wrote it. ThingsBoard stores some numbers as text (thingsboard
`JsonConverter`, typing rules); for those a corrected `payload` is published instead (rules: docs/telemetry.md):

* NaN, ±Infinity and numbers too large for a double: the key is left out;
* numbers written with more than 16 decimals: rounded to 15 decimals;
* whole numbers beyond 64 bit: written as a decimal (`1.2e20` becomes `120000000000000000000.0`);
* half a surrogate pair in a text (`\\ud800`): U+FFFD;
* a `ts` with decimals: cut to whole milliseconds.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import orjson

from teg.domain.errors import Refused
from teg.domain.limits import MAX_PAYLOAD_BYTES

#: A record must fit alone into one array: `[` + record + `]`.
MAX_RECORD_BYTES = MAX_PAYLOAD_BYTES - 2
MAX_KEY_CHARACTERS = 255
MAX_NESTING = 32
#: Below this a "millisecond" timestamp is really seconds, or a clock that was never set (March 1973).
EARLIEST_TS_MS = 100_000_000_000
LATEST_TS_MS = 253_402_300_799_999  # 9999-12-31
#: By this a letter is found again when the clock is set (`clock_steps`).
REASON_CLOCK_NOT_SET = "from a clock that was not set"
#: The server keeps a double up to 16 decimals (thingsboard `JsonConverter`); beyond, we round to 15.
SERVER_DECIMALS = 16
MAX_DECIMALS = 15
#: Longer digit strings are beyond every double; int() would take quadratic time on them.
MAX_DIGITS = 400

#: Every digit becomes 0 and E becomes e: one pass, then plain finds (a regular expression took four times as long).
_NUMBER_SHAPES = bytes.maketrans(b"123456789E", b"000000000e")
_SEVENTEEN_DIGITS = b"0" * 17
_EXPONENT = re.compile(rb"\d[eE][+-]?\d")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
#: The server acknowledges and then drops what carries markup in a key (thingsboard `NoXssValidator`).
_MARKUP = re.compile(r"<[A-Za-z/!?]")


#: Key sets that passed `_check_keys`: a controller sends the same few for ever, and looking one up is cheap.
_GOOD_KEYS: set[tuple[str, ...]] = set()
MAX_GOOD_KEYS = 1000
#: Both bound the memory: a record may have ten thousand keys, and be different each time.
MAX_GOOD_KEYS_CHARACTERS = 500_000
_good_keys_characters = 0


class Record(NamedTuple):
    """An accepted inbox row; a tuple because batches of it go straight into the database.

    `payload` is None when `message` itself is published; `points` counts the keys (ThingsBoard's data points).
    """

    source_row: int
    ts_ms: int
    points: int
    message: str
    payload: str | None
    transient: bool


@dataclass(frozen=True, slots=True)
class SetAside:
    """An inbox row that cannot become telemetry, kept whole with the reason."""

    source_row: int
    type: str
    message: bytes
    reason: str


class Oversized(bytes):
    """The beginning of a message too big to be read as a whole; `size_bytes` is its full size."""

    size_bytes: int

    def __new__(cls, beginning: bytes, size_bytes: int) -> "Oversized":
        message = super().__new__(cls, beginning)
        message.size_bytes = size_bytes
        return message


def is_log(row_type: Any) -> bool:
    """Log records are published but not archived: `type` is exactly `log` or begins with `log_`."""
    if isinstance(row_type, bytearray):
        return row_type == b"log" or row_type.startswith(b"log_")
    return False  # NULL, numbers and blobs name no type


def validate(row_id: int, row_type: Any, message: Any) -> Record | SetAside:
    """Decide on one inbox row; never raises. `message` is a bytearray for SQLite TEXT and bytes for a BLOB."""
    try:
        return _accept(row_id, row_type, message)
    except Refused as reason:
        return SetAside(row_id, _as_text(row_type), as_bytes(message), str(reason))


def restamp(
    row_id: int, row_type: str, text: str, shift_ms: int, wanted: Callable[[int], bool] = lambda _: True
) -> Record | None:
    """The record of `text` with a `ts` later by `shift_ms`; None when it is none, or its `ts` is not `wanted`."""
    try:
        body = _parse_exact(text)
        if type(body) is not dict or type(ts_ms := body.get("ts")) is not int or not wanted(ts_ms):
            return None
        body["ts"] = ts_ms + shift_ms
        ts_ms, values, payload = _made_right(body)
        _check_keys(values)
        payload = payload or _encode(ts_ms, values)
        _check_size(len(payload.encode()))
        return Record(row_id, ts_ms, len(values), text, payload, is_log(bytearray(row_type.encode())))
    except Refused:
        return None


def encode_values(ts_ms: int, values: Mapping[str, Any]) -> str | None:
    """A record of values that were computed, spelled so that the server stores numbers; None when none is left."""
    written = {key: _Written(repr(value)) if type(value) is float else value for key, value in values.items()}
    right = {key: _number_set_right(value) for key, value in written.items() if not _endless(value)}
    right = {key: value for key, value in right.items() if value is not _LEFT_OUT}
    return _encode(ts_ms, right) if right else None


def only_keys(record: bytes, keys: Collection[str]) -> tuple[bytes, int]:
    """An accepted record's JSON with these of its keys alone, its numbers as the server stores them; and how many."""
    body = orjson.loads(record)
    values = {key: value for key, value in body["values"].items() if key in keys}
    text = orjson.dumps({"ts": body["ts"], "values": values})
    if _EXPONENT.search(text):  # made by orjson, perhaps: the server types these in its own way
        body = _parse_exact(record.decode())
        text = _encode(body["ts"], {key: value for key, value in body["values"].items() if key in keys}).encode()
    return text, len(values)


def _endless(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _accept(row_id: int, row_type: Any, message: Any) -> Record:
    text = _text(message)
    body = _LEFT_OUT if _needs_a_look(message) else _parse_fast(text)
    if body is _LEFT_OUT:
        ts_ms, values, payload = _set_right(text)
    else:
        ts_ms, values = _parts(body)
        payload = None if type(body["ts"]) is int else _encode(ts_ms, values)
    if not has_good_keys(values):
        _check_keys(values)
        _remember_keys(tuple(values))
    _check_size(len(message) if payload is None else len(payload.encode()))
    return Record(row_id, ts_ms, len(values), text, payload, is_log(row_type))


def _needs_a_look(message: bytearray) -> bool:
    """True when some number might be distorted or the nesting might be deep."""
    return holds_odd_numbers(message) or message.count(b"{") + message.count(b"[") > MAX_NESTING


def holds_odd_numbers(text: bytes | bytearray) -> bool:
    """True when there may be a number of 17 digits, with an exponent, NaN or Infinity."""
    shapes = text.translate(_NUMBER_SHAPES)
    return (
        _SEVENTEEN_DIGITS in shapes
        or b"0e" in shapes
        or (b"N" in shapes and b"NaN" in shapes)  # one letter is found many times faster
        or (b"I" in shapes and b"Infinity" in shapes)
    )


def _text(message: Any) -> str:
    if isinstance(message, bytearray):
        try:
            return message.decode()
        except UnicodeDecodeError as error:
            raise Refused(f"message is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if message is None:
        raise Refused("message is NULL")
    if isinstance(message, Oversized):
        raise Refused(f"message of {message.size_bytes} bytes is over the limit; only its beginning is kept")
    raise Refused(f"message is a {'BLOB' if isinstance(message, bytes) else type(message).__name__}, not text")


def _parse_fast(text: str) -> Any:
    """`_LEFT_OUT` for what orjson refuses: the slow path is more lenient (lone surrogates) and says what is wrong."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _LEFT_OUT


def _parts(body: Any) -> tuple[int, dict[str, Any]]:
    if type(body) is not dict:
        raise Refused(f"message is a JSON {type(body).__name__}, not an object")
    if "ts" not in body:
        raise Refused("'ts' is missing")
    ts_ms = _checked_ts(body["ts"])
    values = body.get("values")
    if type(values) is not dict:
        raise Refused("'values' is missing" if "values" not in body else "'values' is not an object")
    if not values:
        raise Refused("'values' is empty")
    return ts_ms, values


def _check_keys(values: dict[str, Any]) -> None:
    """The server acknowledges records with such keys, and drops them unseen afterwards."""
    if not all(map(str.strip, values)):
        raise Refused("a key is empty or blank")
    if max(map(len, values)) > MAX_KEY_CHARACTERS // 2 and max(map(_java_length, values)) > MAX_KEY_CHARACTERS:
        raise Refused(f"a key is longer than {MAX_KEY_CHARACTERS} characters")
    if markup := next(filter(_MARKUP.search, values), None):
        raise Refused(f"a key holds markup: {markup[:40]!r}")


def has_good_keys(values: dict[str, Any]) -> bool:
    """Were these keys, in this order, accepted before? False says nothing about them."""
    return tuple(values) in _GOOD_KEYS


def _remember_keys(keys: tuple[str, ...]) -> None:
    """A key counts 16 characters more than it has: what Python needs for it."""
    global _good_keys_characters
    size = sum(map(len, keys)) + 16 * len(keys)
    if len(_GOOD_KEYS) < MAX_GOOD_KEYS and _good_keys_characters + size <= MAX_GOOD_KEYS_CHARACTERS:
        _GOOD_KEYS.add(keys)
        _good_keys_characters += size


def _java_length(text: str) -> int:
    """Characters as the server counts them: UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _checked_ts(ts: Any) -> int:
    if isinstance(ts, float) and math.isfinite(ts):
        ts = int(ts)
    if type(ts) is not int:
        raise Refused(f"'ts' is not a number of milliseconds: {str(ts)[:40]!r}")
    if ts < EARLIEST_TS_MS:
        raise Refused(f"'ts' {ts} is negative, in seconds, or {REASON_CLOCK_NOT_SET}; milliseconds are meant")
    if ts > LATEST_TS_MS:
        raise Refused(f"'ts' {str(ts)[:40]} is after the year 9999")
    return ts


def _set_right(text: str) -> tuple[int, dict[str, Any], str | None]:
    """The slow path for the few messages whose numbers need a look; payload None when nothing was wrong after all."""
    return _made_right(_parse_exact(text))


def _made_right(body: Any) -> tuple[int, dict[str, Any], str | None]:
    if _too_deep(body, MAX_NESTING):
        raise Refused(f"message is nested deeper than {MAX_NESTING} levels")
    ts_ms, values = _parts(body)
    right = {key: _number_set_right(value) for key, value in values.items()}
    right = {key: value for key, value in right.items() if value is not _LEFT_OUT}
    if all(right.get(key) is value for key, value in values.items()) and type(body["ts"]) is int and _is_plain(body):
        return ts_ms, values, None
    if not right:
        raise Refused("no value is left: all were NaN, Infinity or too large for a number")
    return ts_ms, right, _encode(ts_ms, right)


def _parse_exact(text: str) -> Any:
    try:
        return json.loads(text, parse_float=_Written, parse_int=_whole)
    except RecursionError as error:
        raise Refused("message is nested too deep") from error
    except ValueError as error:
        raise Refused(f"message is not JSON: {str(error)[:200]}") from error


def _is_plain(body: Any) -> bool:
    """Nothing outside of the values' numbers needs to be rewritten: no NaN anywhere, no half surrogate pair."""
    try:
        return not _LONE_SURROGATE.search(json.dumps(body, ensure_ascii=False, allow_nan=False))
    except ValueError:
        return False


class _Written(float):
    """A number with the text it came in: its digits decide whether the server stores a number or a text."""

    text: str

    def __new__(cls, text: str) -> "_Written":
        number = super().__new__(cls, text)
        number.text = text
        return number


class _Verbatim(float):
    """A number spelled without an exponent: ThingsBoard types `1e20` as text, `100000000000000000000.0` as double."""

    def __repr__(self) -> str:
        return f"{float(self):.1f}"


_LEFT_OUT: Any = object()


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _number_set_right(value: Any) -> Any:
    """The same object when the server would store it as it is, else its replacement, `_LEFT_OUT` for none."""
    if isinstance(value, (dict, list)):
        return _nested_set_right(value)
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else _as_double(value)
    if type(value) is _Written:
        return value if _stored_as_number(value.text) else _as_double(value)
    return _LEFT_OUT if type(value) is float else value  # NaN, ±Infinity, more digits than a double can hold


def _stored_as_number(text: str) -> bool:
    """ThingsBoard's typing of a number written with a point or an exponent (`JsonConverter.parseNumericValue`)."""
    try:
        _, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:  # an exponent beyond all reason
        return False
    scale = -int(exponent)
    if "e" not in text.lower() or (scale > 0 and any(digits[-scale:])):
        return scale <= SERVER_DECIMALS
    return abs(float(text)) < 2**63 and abs(scale) <= SERVER_DECIMALS


def _as_double(value: float) -> Any:
    """Spelled so that the server stores a double: no exponent when large, no more than 15 decimals when small."""
    try:
        number = float(value)
    except OverflowError:
        return _LEFT_OUT
    if not math.isfinite(number):
        return _LEFT_OUT
    return _Verbatim(number) if abs(number) >= 2**53 else round(number, MAX_DECIMALS)


def _nested_set_right(value: Any) -> Any:
    """Inside a JSON value numbers stay as they are; only what is no JSON at all (NaN) becomes null."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return json.loads(json.dumps(value), parse_constant=lambda _: None)
    return value


def _encode(ts_ms: int, values: dict[str, Any]) -> str:
    """Like json.dumps, but with our spelling of numbers; only the slow path comes here."""
    members = ",".join(f"{_spelled(key)}:{_spelled(value)}" for key, value in values.items())
    return _LONE_SURROGATE.sub("\ufffd", f'{{"ts":{ts_ms},"values":{{{members}}}}}')


def _spelled(value: Any) -> str:
    if type(value) is _Written:
        return value.text
    return repr(value) if type(value) is _Verbatim else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _too_deep(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    children = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_too_deep(child, levels - 1) for child in children)


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_RECORD_BYTES:
        raise Refused(f"message of {size_bytes} bytes is over the limit of {MAX_RECORD_BYTES}")


def _as_text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value[:200].decode(errors="replace")
    return "" if value is None else str(value)[:200]


def as_bytes(value: Any) -> bytes:
    """The message as the archive keeps it, whatever SQLite held."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return b"" if value is None else str(value).encode()
