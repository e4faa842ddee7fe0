"""`TEG_REPORT`: which of the archived values go to the server, by key; from a technician's text to rules. Pure.

    pm*: mean every 60s; temperature: change 0.2 every 10min; debug_*: never; *: every 10s

Entries are separated by semicolons; of several that take a key the first holds; a key that none takes is sent whole.
Documented with examples in docs/thin-links.md.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from teg.domain.errors import Refused

NAME = "TEG_REPORT"
#: What a window can be told as.
FIGURES = ("last", "mean", "min", "max")
UNITS_MS = {"s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
#: The longest window: so much of the archive is read again at a start.
LONGEST_WINDOW_MS, LONGEST_SILENCE_MS = UNITS_MS["d"], 31 * UNITS_MS["d"]
#: A value that does not change is told this often all the same, unless the text says otherwise.
SILENCE_MS = UNITS_MS["h"]
EXAMPLE = "pm*: mean every 60s; temperature: change 0.2 every 10min; debug_*: never"

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_DURATION = re.compile(rf"({_NUMBER})\s*([a-zA-Z]*)")
_BAND = re.compile(rf"({_NUMBER})\s*(%?)")
_WORDS = ("all", "never", "change", "every", *FIGURES)


class Way(StrEnum):
    ALL = "all"
    NEVER = "never"
    WINDOW = "window"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class Strategy:
    """`every_ms` is a window's length or the longest silence; `band` is absolute, or a share of the last value."""

    way: Way
    every_ms: int = 0
    figures: tuple[str, ...] = ()
    band: float = 0.0
    relative: bool = False


EVERY_RECORD = Strategy(Way.ALL)


@dataclass(frozen=True, slots=True)
class ReportRules:
    """`text` is what they were read from; without any entry every key is sent whole."""

    text: str = ""
    entries: tuple[tuple[re.Pattern[str], Strategy], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entries)

    def of(self, key: str) -> Strategy:
        return next((strategy for pattern, strategy in self.entries if pattern.fullmatch(key)), EVERY_RECORD)


def parse_report(text: str) -> ReportRules:
    """
    Raises:
        Refused: naming every entry that is wrong, and how one is written.
    """
    entries: list[tuple[re.Pattern[str], Strategy]] = []
    problems: list[str] = []
    names: list[str] = []
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        try:
            name, strategy = _entry(entry, names)
            entries.append((_pattern(name), strategy))
            names.append(name)
        except Refused as problem:
            problems.append(f"{NAME}: {entry!r}: {problem}")
    if problems:
        raise Refused("\n".join([*problems, f"{NAME} is written like this: {EXAMPLE}"]))
    return ReportRules(text, tuple(entries))


def _entry(entry: str, before: Sequence[str]) -> tuple[str, Strategy]:
    name, colon, words = entry.rpartition(":")
    if not colon or not (name := name.strip()):
        raise Refused("is not of the form 'key: strategy'")
    if name in before:
        raise Refused(f"{name!r} has an entry already")
    if "*" in before:
        raise Refused("stands behind '*', which takes every key: put it before")
    return name, _strategy(words)


def _pattern(name: str) -> re.Pattern[str]:
    """`*` is any text, `?` any one character, everything else itself."""
    parts = (".*" if part == "*" else "." if part == "?" else re.escape(part) for part in re.split(r"([*?])", name))
    return re.compile("".join(parts), re.DOTALL)


def _strategy(text: str) -> Strategy:
    how, every, duration = (part.strip() for part in text.lower().partition("every"))
    how = how.removeprefix("on ").removesuffix("at least").rstrip(", ")
    words = [word for word in re.split(r"[\s,+]+", how) if word]
    if not words and not every:
        raise Refused(f"no strategy is given; {_choices()}")
    if words[:1] == ["change"]:
        return _change(how.removeprefix("change").strip(), duration if every else None)
    if words in (["all"], ["never"]):
        if every:
            raise Refused(f"{words[0]!r} takes no 'every'")
        return Strategy(Way(words[0]))
    return _window(words, duration if every else None)


def _window(words: Sequence[str], duration: str | None) -> Strategy:
    for word in words:
        if word not in FIGURES:
            raise Refused(f"{word!r} is no strategy{_near(word)}; {_choices()}")
        if words.count(word) > 1:
            raise Refused(f"{word!r} is named twice")
    if duration is None:
        raise Refused(f"{' '.join(words)!r} needs a time: '{' '.join(words)} every 60s'")
    return Strategy(Way.WINDOW, _duration_ms(duration, LONGEST_WINDOW_MS), tuple(words) or ("last",))


def _change(band: str, duration: str | None) -> Strategy:
    found = _BAND.fullmatch(band)
    if band and found is None:
        raise Refused(f"{band!r} is no band: a number as in 'change 0.5', or a share as in 'change 2%'")
    silence_ms = SILENCE_MS if duration is None else _duration_ms(duration, LONGEST_SILENCE_MS)
    width, share = (float(found[1]), bool(found[2])) if found else (0.0, False)
    return Strategy(Way.CHANGE, silence_ms, band=width / 100 if share else width, relative=share)


def _duration_ms(text: str, longest_ms: int) -> int:
    found = _DURATION.fullmatch(text)
    if found is None or not found[2]:
        raise Refused(f"{text!r} is no time: a number with its unit, as in 10s, 5min, 1h or 1d")
    if found[2] not in UNITS_MS:
        raise Refused(f"{found[2]!r} is no unit of time; there are {', '.join(UNITS_MS)}")
    duration_ms = round(float(found[1]) * UNITS_MS[found[2]])
    if not 1000 <= duration_ms <= longest_ms:
        raise Refused(f"{text!r} is not from 1s to {longest_ms // UNITS_MS['d']}d")
    return duration_ms


def _near(word: str) -> str:
    near = difflib.get_close_matches(word, _WORDS, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _choices() -> str:
    return "there are all, never, change, and last, mean, min, max with 'every'"
