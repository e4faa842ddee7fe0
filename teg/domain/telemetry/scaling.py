"""Numbers that ThingsBoard does not keep as numbers: who they are, and scaling them on the way.

ThingsBoard parses a value twice; whatever is beyond ±2^63 becomes text, however it is written, and what is smaller than
1e-15 is rounded to 0.0 on our side, because more than 16 decimals would become text, too. Column densities (1e21) and
mixing ratios (1e-18) are such numbers. `TEG_TELEMETRY_SCALE` multiplies them on their way; the archive keeps what the
controller wrote.
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping

import orjson

logger = logging.getLogger("gateway.numbers")

#: The first magnitude that the server stores as text.
TOO_LARGE = 2.0**63
#: Below this a number is sent as 0.0.
TOO_SMALL = 1e-15
DECIMALS = 15
#: Keys that are named in one life of the gateway: a controller can make up any number of them, of any length.
MAX_NAMED, MAX_SHOWN = 100, 100
#: A text without any of these holds no such number; nearly all records end here.
_SUSPECT = re.compile(rb"\d{19}|[eE][+-]?\d")


class Numbers:
    """`scaled` what is on its way to the server, `noticed` what it will not be able to keep."""

    def __init__(self, factors: Mapping[str, float]) -> None:
        self._factors = factors
        self._names = [orjson.dumps(key) for key in factors]
        self._said: set[str] = set()
        self._lock = threading.Lock()

    @property
    def scaling(self) -> Callable[[bytes], bytes] | None:
        """None when no key is to be scaled: then nobody needs to look."""
        return self.scaled if self._factors else None

    def scaled(self, record: bytes) -> bytes:
        """The record's JSON with the values of the named keys multiplied; unchanged when it has none of them."""
        if not any(name in record for name in self._names):
            return record
        body = orjson.loads(record)
        values = body.get("values")
        if isinstance(values, dict):
            body["values"] = {key: self.scale(key, value) for key, value in values.items()}
        return orjson.dumps(body)

    def scale(self, key: str, value: object) -> object:
        """One value of `key` as the server gets it."""
        if key not in self._factors or isinstance(value, bool) or not isinstance(value, int | float):
            return value
        return round(value * self._factors[key], DECIMALS)

    def notice(self, message: str | bytes) -> None:
        """Say each key once a start that holds a number which the server cannot keep, and what to do about it."""
        if len(self._said) >= MAX_NAMED:
            return
        text = message.encode() if isinstance(message, str) else message
        if _SUSPECT.search(text) is None:
            return
        for key, value in _numbers(text):
            magnitude = abs(value * self._factors.get(key, 1.0))
            if magnitude >= TOO_LARGE:
                self._say(key, "larger than 2^63: ThingsBoard stores it as text, which no dashboard can plot", "1e-18")
            elif 0 < magnitude < TOO_SMALL:
                self._say(key, "smaller than 1e-15: ThingsBoard gets 0.0", "1e18")

    def _say(self, key: str, what: str, factor: str) -> None:
        with self._lock:
            if key in self._said or len(self._said) >= MAX_NAMED:
                return
            self._said.add(key)
            last = len(self._said) == MAX_NAMED
        key = shown(key)
        logger.warning(
            "'%s' is %s. Let the controller write it in another unit, or set TEG_TELEMETRY_SCALE=%s:%s",
            key,
            what,
            key,
            factor,
        )
        if last:
            logger.warning("more keys with such numbers are not named until the next start")


def shown(key: str) -> str:
    """A key as the controller made it up, fit for a line of the log."""
    text = key.encode("unicode_escape").decode() if not key.isprintable() else key
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _numbers(text: bytes) -> list[tuple[str, float]]:
    try:
        body = orjson.loads(text)
        values = body["values"]
        return [(key, float(value)) for key, value in values.items() if type(value) in (int, float)]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, OverflowError):
        return []
