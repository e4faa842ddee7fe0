"""Telemetry and attribute payloads: which ones the server takes, and what it reads out of them.

`check_*` runs for every publish and must be cheap: one orjson pass and a few passes in C over the elements.
`records_in` is the slow, exact reading, done when somebody asks for the stored values.
"""

import json
import re
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import orjson

from teg.simulator.thingsboard import lenient_json
from teg.simulator.thingsboard.lenient_json import MAX_DEPTH, NotJson, NumberText

#: Numbers whose exact text matters: 17 decimals, an exponent, or 19 digits in a row.
_DELICATE = re.compile(rb"\.\d{17}|\d[eE][-+]?\d|\d{19}")
_EXACT = json.JSONDecoder(parse_int=NumberText, parse_float=NumberText, parse_constant=str, strict=False)
_ts = itemgetter("ts")
_values = itemgetter("values")


class BadPayload(Exception):  # noqa: N818
    """Not what the topic takes: the session is closed (MQTT 5: PUBACK 0x99)."""


class BadRequestId(BadPayload):
    """A request id that is no 32-bit decimal number."""


class ConversionFailed(BadPayload):
    """What the server trips over, such as `ts` as text: the session is closed in every version (MQTT 5: 0x8B)."""


def parse(payload: bytes) -> Any:
    """Parse as the server does. Numbers may have lost digits: good for shapes, not for values."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return _parse_leniently(payload)


def parse_exact(payload: bytes) -> Any:
    """Parse so that `typing_rules.typed` gives what the server stores, whatever the digits."""
    if not _DELICATE.search(payload):
        return parse(payload)
    if b"\\u" in payload:  # the standard library lets half a surrogate pair through
        return _parse_leniently(payload)
    try:
        return _EXACT.decode(payload.decode())
    except (ValueError, RecursionError):
        return _parse_leniently(payload)


def parse_object(payload: bytes) -> dict[str, Any]:
    body = parse(payload)
    if not isinstance(body, dict):
        raise BadPayload(f"a JSON object is wanted, not {type(body).__name__}")
    _check_depth(payload, 1)
    return body


def check_telemetry(payload: bytes) -> list[dict[str, Any]]:
    """Return the elements of a telemetry payload (one, if it is an object) or raise `BadPayload`."""
    body = parse(payload)
    elements = body if type(body) is list else [body]
    if not _is_uniform(elements):
        for element in elements:
            _check_element(element)
    _check_depth(payload, len(elements))
    return elements


def count_points(elements: list[dict[str, Any]]) -> int:
    """Data points as the rate limit counts them: the keys of all elements."""
    return sum(len(element["values"] if is_timestamped(element) else element) for element in elements)


def is_timestamped(element: dict[str, Any]) -> bool:
    """Only with both keys; `{"ts": 1, "temp": 2}` is two values at server time."""
    return "ts" in element and "values" in element


def records_in(payload: bytes, arrival_ms: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(ts, values) of every element of an accepted payload, exact enough for `typing_rules.typed`."""
    body = parse_exact(payload)
    for element in body if isinstance(body, list) else [body]:
        if is_timestamped(element):
            yield _milliseconds(element["ts"]), element["values"]
        else:
            yield arrival_ms, element


def _parse_leniently(payload: bytes) -> Any:
    try:
        return lenient_json.parse(payload.decode("utf-8", "replace"))
    except NotJson as error:
        raise BadPayload(str(error)) from error


def _is_uniform(elements: list[Any]) -> bool:
    """True when every element is `{"ts": <int>, "values": {...}}`: the common case, decided in C."""
    try:
        return (
            set(map(type, elements)) == {dict}
            and set(map(type, map(_ts, elements))) == {int}
            and set(map(type, map(_values, elements))) == {dict}
        )
    except KeyError:
        return False


def _check_element(element: Any) -> None:
    if not isinstance(element, dict):
        raise BadPayload(f"a telemetry element is an object, not {type(element).__name__}")
    if not is_timestamped(element):
        return
    _milliseconds(element["ts"])
    if not isinstance(element["values"], dict):
        raise BadPayload("'values' is not an object")


def _milliseconds(ts: Any) -> int:
    """Numbers are truncated, text must be a whole number, a list of one counts as its element (Gson's getAsLong)."""
    if type(ts) is int:
        return ts
    if isinstance(ts, list) and len(ts) == 1:
        return _milliseconds(ts[0])
    try:
        if isinstance(ts, str) and not isinstance(ts, NumberText):
            return _whole_number(ts)
        if isinstance(ts, int | float | NumberText) and not isinstance(ts, bool):
            return int(float(ts)) if isinstance(ts, NumberText) and not ts.isdecimal() else int(ts)
    except (ValueError, OverflowError) as error:
        raise ConversionFailed(f"'ts' is {ts!r}") from error
    raise ConversionFailed(f"'ts' is {ts!r}")


def _whole_number(text: str) -> int:
    if not re.fullmatch(r"[-+]?\d{1,19}", text):
        raise ValueError(text)
    return int(text)


def _check_depth(payload: bytes, elements: int) -> None:
    """Flat elements need two brackets each; only what has many more can be nested too deeply."""
    if payload.count(b"{") + payload.count(b"[") > 2 * elements + MAX_DEPTH - 5:
        _check_depth_exactly(payload)


def _check_depth_exactly(payload: bytes) -> None:
    depth = 0
    for token in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', payload, re.DOTALL):
        if token[0] in (b"{", b"["):
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth -= 1
        if depth > MAX_DEPTH:
            raise BadPayload(f"more than {MAX_DEPTH} levels")
