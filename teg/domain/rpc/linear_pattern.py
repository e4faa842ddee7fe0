"""Regular expressions that cannot take long: matched in time proportional to text times pattern, never by trying again.

`re` tries one way after the other; `(a+)+b` then takes longer than the device lives, and the whole interpreter waits.
Here all ways are followed at once (Thompson 1968), which works for everything that is a regular language: characters,
classes, groups, alternatives, repetitions. What is not (references back, looking around) is refused when it is read.
"""

import re
import re._compiler as re_compiler  # type: ignore[import-not-found,unused-ignore]
import re._constants as codes  # type: ignore[import-not-found,unused-ignore]
import re._parser as re_parser  # type: ignore[import-not-found,unused-ignore]
from collections.abc import Iterable
from typing import Any

from teg.domain.errors import Refused

MAX_PATTERN = 512
#: Places in the pattern, repetitions written out.
MAX_PLACES = 1_000

_ONE_CHARACTER = {codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN}
_STARTS = {codes.AT_BEGINNING, codes.AT_BEGINNING_STRING}
_ENDS = {codes.AT_END, codes.AT_END_STRING}


class LinearPattern:
    """Matches whole texts only; `^` at the beginning and `$` at the end say nothing more."""

    def __init__(self, text: str) -> None:
        """Raises Refused, with the reason, for what is no regular expression or cannot be matched in linear time."""
        if len(text) > MAX_PATTERN:
            raise Refused(f"a pattern has at most {MAX_PATTERN} characters")
        try:
            tree = re_parser.parse(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise Refused(f"pattern {text!r}: {error}") from error
        self._state, self._flags = tree.state, tree.state.flags
        self._matchers: list[re.Pattern[str] | None] = []  #: by place; None: nothing is read there
        self._next: list[list[int]] = []
        self._leaves: dict[str, re.Pattern[str]] = {}
        items = list(tree)
        if items and items[0][0] is codes.AT and items[0][1] in _STARTS:
            items = items[1:]
        if items and items[-1][0] is codes.AT and items[-1][1] in _ENDS:
            items = items[:-1]
        start = self._place()
        self._end = self._sequence(items, start)
        self._start = start

    def fullmatch(self, text: str) -> bool:
        here = self._reached([self._start])
        for character in text:
            here = self._reached(self._step(here, character))
            if not here:
                return False
        return self._end in here

    def _step(self, here: Iterable[int], character: str) -> list[int]:
        found = []
        for place in here:
            matcher = self._matchers[place]
            if matcher is not None and matcher.fullmatch(character):
                found.extend(self._next[place])
        return found

    def _reached(self, places: Iterable[int]) -> set[int]:
        """These and all that follow without reading anything."""
        found: set[int] = set()
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            if place not in found:
                found.add(place)
                if self._matchers[place] is None:
                    waiting.extend(self._next[place])
        return found

    # --- building: every method adds places behind `at` and returns the last one --------------------------------

    def _place(self, matcher: re.Pattern[str] | None = None) -> int:
        if len(self._matchers) == MAX_PLACES:
            raise Refused("the pattern repeats too much: use smaller counts")
        self._matchers.append(matcher)
        self._next.append([])
        return len(self._matchers) - 1

    def _sequence(self, items: Iterable[tuple[Any, Any]], at: int) -> int:
        for code, value in items:
            at = self._item(code, value, at)
        return at

    def _item(self, code: Any, value: Any, at: int) -> int:
        if code in _ONE_CHARACTER:
            return self._character((code, value), at)
        if code is codes.SUBPATTERN and not value[1] and not value[2]:
            return self._sequence(value[3], at)
        if code is codes.BRANCH:
            return self._branch(value[1], at)
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            return self._repeat(value, at)
        raise Refused(f"the pattern uses {str(code).lower()}, which can take for ever; classes and repetitions can not")

    def _character(self, item: tuple[Any, Any], at: int) -> int:
        key = repr(item)
        if key not in self._leaves:
            leaf = re_parser.SubPattern(self._state, [item])
            self._leaves[key] = re_compiler.compile(leaf, self._flags)
        reading, behind = self._place(self._leaves[key]), self._place()
        self._next[at].append(reading)
        self._next[reading].append(behind)
        return behind

    def _branch(self, ways: Iterable[Iterable[tuple[Any, Any]]], at: int) -> int:
        ends = []
        for way in ways:
            start = self._place()
            self._next[at].append(start)
            ends.append(self._sequence(way, start))
        behind = self._place()
        for end in ends:
            self._next[end].append(behind)
        return behind

    def _repeat(self, counts: tuple[int, int, Iterable[tuple[Any, Any]]], at: int) -> int:
        least, most, items = counts[0], counts[1], list(counts[2])
        for _ in range(min(least, MAX_PLACES + 1)):
            at = self._sequence(items, at)
            self._place()  # what is repeated may be empty: it costs all the same
        behind = self._place()
        if most is codes.MAXREPEAT:
            again = self._place()
            self._next[at].append(again)
            self._next[self._sequence(items, again)].append(again)
            self._next[again].append(behind)
            return behind
        self._next[at].append(behind)
        for _ in range(min(most - least, MAX_PLACES + 1)):
            at = self._sequence(items, at)
            self._next[at].append(behind)
        return behind
