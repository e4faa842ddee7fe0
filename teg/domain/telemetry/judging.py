"""Many inbox rows judged by one parse: a backlog's rows look alike, and what costs most is the way to each of them.

The messages are joined by a value that nobody who wrote one can know. The whole is parsed once, and it counts only
when that value stands between any two of what came out: then each message was one JSON value by itself, with nothing of
it in another's place. Whatever is not altogether plain is judged row by row, by `validation.validate` alone.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import orjson

from teg.domain.telemetry.validation import (
    EARLIEST_TS_MS,
    LATEST_TS_MS,
    MAX_RECORD_BYTES,
    Record,
    SetAside,
    has_good_keys,
    holds_odd_numbers,
    is_log,
    validate,
)

#: Neither digits nor an e: what stands between two messages must not look like an odd number. 28 are 130 bits.
_LETTERS = "abcdfghijklmnopqrstuvwxyz"
#: Rows in one parse. One that is not plain sends all of them the long way.
TOGETHER = 50

Row = Sequence[Any]


class Plain(NamedTuple):
    """An accepted row whose message is published as it is, and holds no number that needs a second look."""

    source_row: int
    ts_ms: int
    points: int
    transient: bool


class Judge:
    """Of one process: nobody else knows what it puts between two messages."""

    def __init__(self) -> None:
        self._between = "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(28))
        self._joint = f',"{self._between}",'.encode()

    def judged(self, rows: Iterable[Row]) -> Iterator[tuple[Any, Plain | Record | SetAside]]:
        """From rows (id, type, message) pairs of the message and what becomes of it, in order."""
        source = iter(rows)
        while group := list(islice(source, TOGETHER)):
            yield from self._together(group) or [
                (message, validate(row_id, of, message)) for row_id, of, message in group
            ]

    def _together(self, group: Sequence[Row]) -> list[tuple[Any, Plain | Record | SetAside]] | None:
        bodies = self._bodies([row[2] for row in group])
        if bodies is None:
            return None
        found: list[tuple[Any, Plain | Record | SetAside]] = []
        for (row_id, row_type, message), body in zip(group, bodies, strict=True):
            if type(body) is not dict:
                return None
            ts_ms, values = body.get("ts"), body.get("values")
            if (
                type(ts_ms) is not int
                or type(values) is not dict
                or not (EARLIEST_TS_MS <= ts_ms <= LATEST_TS_MS)
                or len(message) > MAX_RECORD_BYTES
                or not has_good_keys(values)
            ):
                return None
            found.append((message, Plain(row_id, ts_ms, len(values), is_log(row_type))))
        return found

    def _bodies(self, messages: Sequence[Any]) -> list[Any] | None:
        """None unless all are JSON texts, two braces each on average, without brackets and odd numbers.

        Every record has two braces; so when all turn out to be records, none of them is nested.
        """
        if len(messages) < 2 or any(type(message) is not bytearray for message in messages):
            return None
        whole = self._joint.join(messages)
        if whole.count(b"{") != 2 * len(messages) or b"[" in whole or holds_odd_numbers(whole):
            return None
        try:
            found = orjson.loads(b"[" + whole + b"]")
        except orjson.JSONDecodeError:
            return None
        between = found[1::2]
        if len(found) != 2 * len(messages) - 1 or between != [self._between] * len(between):
            return None
        bodies: list[Any] = found[::2]
        return bodies
