"""Keeps secrets out of logs and journal: what looks like one by its name is replaced by `***`."""

import re
from typing import Any

import orjson

MASK = "***"
MAX_DEPTH = 16
MAX_TEXT = 2_000

_NAME = r"token|passw|passphrase|pwd|secret|key|credential|authori[sz]ation|bearer|cookie|private"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_SECRET_FLAG = re.compile(rf"-{{1,2}}[\w-]*({_NAME})[\w-]*\Z", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(({_NAME})[\w-]{{0,40}}[\"']?\s{{0,9}}[=:]\s*).+", re.IGNORECASE | re.DOTALL)
_URL_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s/@]+@")


def redacted(value: Any, depth: int = 0) -> Any:
    """`value` with secrets replaced; deeper than `MAX_DEPTH` levels nothing is shown at all."""
    if isinstance(value, str):
        return redacted_text(value)
    if not isinstance(value, (dict, list)):
        return value
    if depth == MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        return {
            key: MASK if _SECRET_NAME.search(str(key)) else redacted(inner, depth + 1) for key, inner in value.items()
        }
    return [
        MASK if index and _is_secret_flag(value[index - 1]) else redacted(inner, depth + 1)
        for index, inner in enumerate(value)
    ]


def redacted_text(text: str) -> str:
    """Everything after `password=`, `Authorization:` and the like, and the password of a URL, is hidden.

    Only the first `MAX_TEXT` characters are looked at and returned, so that no text can make this slow.
    """
    text = text[:MAX_TEXT]
    return _URL_PASSWORD.sub(rf"\1{MASK}@", _ASSIGNED.sub(rf"\1{MASK}", text))


def redacted_json(value: Any) -> str:
    """One line of JSON for the journal, cut to `MAX_TEXT` characters."""
    text = orjson.dumps(redacted(value), option=orjson.OPT_NON_STR_KEYS).decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _is_secret_flag(value: Any) -> bool:
    return isinstance(value, str) and _SECRET_FLAG.match(value[:200]) is not None
