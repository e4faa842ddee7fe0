"""JSON as ThingsBoard's parser reads it: Gson in lenient mode, numbers kept as the text they were written in.

Only for payloads that a strict parser refuses: it is a character-by-character reader and slow.
Source: Gson's JsonReader (setLenient). A real 4.2.1 took 300 levels; where it ends was not tried. Here it ends at
`MAX_DEPTH`, because Python's stack does.
"""

import re
from typing import Any

MAX_DEPTH = 400

_SPACE = re.compile(r"(?:[ \t\r\n]|//[^\r\n]*|#[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_LITERAL = re.compile(r"[^/\\;#={}\[\]:, \t\f\r\n]+")
_STRING_PART = {quote: re.compile(rf"[^{quote}\\]*") for quote in "'\""}
_ESCAPES = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f", "\n": "\n"} | {c: c for c in "'\"\\/"}
_KEYWORDS = {"true": True, "false": False, "null": None}


class NotJson(ValueError):  # noqa: N818
    """Text that even the lenient parser gives up on."""


class NumberText(str):
    """A JSON number as it was written: its digits decide what the server stores."""

    __slots__ = ()


def parse(text: str) -> Any:
    """Return dict, list, str, NumberText, bool or None; bare words (NaN, Infinity) come back as str.

    Raises:
        NotJson: text after the value, an unfinished value, more levels than `MAX_DEPTH`.
    """
    reader = _Reader(text.removeprefix("\ufeff"))
    value = reader.value(0)
    reader.skip_space()
    if reader.at < len(reader.text):
        raise NotJson(f"text after the value at character {reader.at}")
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip_space(self) -> str:
        """Step over blanks and comments; return the character that follows, empty at the end."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.text[self.at : self.at + 1]

    def value(self, depth: int) -> Any:
        first = self.skip_space()
        if first in ("{", "[") and depth == MAX_DEPTH:
            raise NotJson(f"more than {MAX_DEPTH} levels")
        if first == "{":
            return self._object(depth + 1)
        if first == "[":
            return self._array(depth + 1)
        if first in ("'", '"'):
            return self._quoted()
        return _meaning(self._literal())

    def _object(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self.at += 1
        if self.skip_space() == "}":
            self.at += 1
            return members
        while True:
            name = self._name()
            members[name] = self.value(depth)
            if self._separator("}"):
                return members

    def _array(self, depth: int) -> list[Any]:
        """A missing element (`[1,,2]`, `[1,]`) is null, as in Gson."""
        elements: list[Any] = []
        self.at += 1
        if self.skip_space() == "]":
            self.at += 1
            return elements
        while True:
            missing = self.skip_space() in (",", ";", "]")
            elements.append(None if missing else self.value(depth))
            if self._separator("]"):
                return elements

    def _separator(self, closing: str) -> bool:
        """Read what follows an element; True when it was the closing bracket."""
        sign = self.skip_space()
        if not sign or sign not in closing + ",;":
            raise NotJson(f"unfinished {'object' if closing == '}' else 'array'} at character {self.at}")
        self.at += 1
        return sign == closing

    def _name(self) -> str:
        first = self.skip_space()
        name = self._quoted() if first and first in "'\"" else self._literal()
        sign = self.skip_space()
        if not sign or sign not in ":=":
            raise NotJson(f"no ':' after the name {name!r}")
        self.at += 1
        if sign == "=" and self.text.startswith(">", self.at):
            self.at += 1
        return name

    def _literal(self) -> str:
        match = _LITERAL.match(self.text, self.at)
        if match is None:
            raise NotJson(f"a value or name is missing at character {self.at}")
        self.at = match.end()
        return match[0]

    def _quoted(self) -> str:
        quote, parts = self.text[self.at], []
        self.at += 1
        while True:
            match = _STRING_PART[quote].match(self.text, self.at)
            parts.append(match[0] if match else "")
            self.at += len(parts[-1]) + 1
            if self.at > len(self.text):
                raise NotJson("unfinished string")
            if self.text[self.at - 1] == quote:
                return _joined(parts)
            parts.append(self._escape())

    def _escape(self) -> str:
        sign, self.at = self.text[self.at : self.at + 1], self.at + 1
        if sign in _ESCAPES and sign:
            return _ESCAPES[sign]
        digits, self.at = self.text[self.at : self.at + 4], self.at + 4
        if sign != "u" or not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
            raise NotJson(f"invalid escape sequence at character {self.at}")
        return chr(int(digits, 16))


def _joined(parts: list[str]) -> str:
    """Join the halves of surrogate pairs; half a pair alone becomes "?", as in Java's UTF-8."""
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return whole.encode("utf-8", "replace").decode()
    return text


def _meaning(literal: str) -> Any:
    if literal.lower() in _KEYWORDS:
        return _KEYWORDS[literal.lower()]
    return NumberText(literal) if _NUMBER.match(literal) else literal
