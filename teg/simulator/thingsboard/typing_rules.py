"""What ThingsBoard makes of a JSON value: long, double, boolean, text or JSON.

A value is parsed twice: by the transport, which prints it as Java does into the message for the rule chain, and by
the rule chain, which stores it. What the operator writes over REST is parsed once (seen on a real 4.2.1).

Source: ThingsBoard's JsonConverter with JSON_TYPE_CAST_ENABLED (the default), Gson and commons-lang's
NumberUtils.isParsable. JSON values are kept as dict or list here; the server stores their text.
"""

import re
from decimal import Decimal
from typing import Any

from teg.simulator.thingsboard.lenient_json import NumberText

MIN_LONG, MAX_LONG = -(2**63), 2**63 - 1
#: A double keeps at most this many digits after the point; with more, the number becomes text.
MAX_SCALE = 16

#: The type of a value that is not stored at all (JSON null).
SKIPPED = object()

_PARSABLE = re.compile(r"-?(?:\d+|\d*\.\d+)\Z")
_SHORT_INTEGER = re.compile(r"-?[0-9]{1,18}\Z")


def typed(value: Any) -> Any:
    """Return what is stored for a parsed value, or `SKIPPED` for null.

    Numbers may come as NumberText (exact) or as int and float, when the caller knows that nothing was
    lost in parsing: see `payloads.parse_exact`.
    """
    kind = type(value)
    if kind is float or kind is bool or kind is int:
        return value
    if kind is str:
        return cast_text(value)
    if kind is NumberText:
        return cast_number(value)
    return SKIPPED if value is None else plain(value)


def stored(value: Any) -> Any:
    """Return what the rule chain stores of a value that a device published, or `SKIPPED` for null."""
    first = typed(value)
    return _reparsed(first) if type(first) is float else first


def _reparsed(number: float) -> int | float | str:
    """Plain decimals come back as they were; what Java prints with an exponent may become long or text."""
    return number if _is_plain(number) else cast_number(java_text(number))


def _is_plain(number: float) -> bool:
    return number == 0 or 1e-3 <= abs(number) < 1e7


def java_text(number: float) -> str:
    """As Java's Double.toString: from 1e7 on and below 1e-3 one digit, at least one decimal, an exponent.

    The digits are the fewest that tell the double from its neighbours; Java before 19 now and then prints one more.
    """
    if _is_plain(number):
        return repr(number)
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    text = "".join(map(str, digits))
    return f"{'-' if sign else ''}{text[0]}.{text[1:] or '0'}E{int(exponent) + len(text) - 1}"


def cast_text(text: str) -> int | float | str:
    """Text that looks like a plain decimal number becomes that number: "0123" -> 123, ".5" -> 0.5."""
    last = text[-1:]
    if not last.isdecimal() or not _PARSABLE.match(text):
        return text
    return cast_number(text)


def cast_number(text: str) -> int | float | str:
    """Long if it is whole (`1e3`, not `1.0`), else double up to 16 decimals, else text without exponent."""
    if _SHORT_INTEGER.match(text):
        return int(text)
    number = Decimal(text)
    if _is_whole(number) and not _is_simple_double(text):
        return _long_or_text(number)
    return float(number) if _scale(number) <= MAX_SCALE else format(number, "f")


def plain(value: Any) -> Any:
    """The value with every NumberText inside it turned into int or float."""
    if isinstance(value, NumberText):
        return int(value) if _SHORT_INTEGER.match(value) else _number(value)
    if isinstance(value, dict):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(element) for element in value]
    return value


def _number(text: str) -> int | float:
    return float(text) if set(text) & set(".eE") else int(text)


def _is_simple_double(text: str) -> bool:
    return "." in text and "e" not in text and "E" not in text


def _scale(number: Decimal) -> int:
    return -int(number.as_tuple().exponent)


def _is_whole(number: Decimal) -> bool:
    digits, scale = number.as_tuple().digits, _scale(number)
    return scale <= 0 or not any(digits[-scale:])


def _long_or_text(number: Decimal) -> int | str:
    if number.adjusted() > MAX_SCALE + 3:
        return format(number, "f")
    whole = int(number)
    return whole if MIN_LONG <= whole <= MAX_LONG else format(number, "f")
