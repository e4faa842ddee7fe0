"""An answer has to fit into one message: what is too long is cut, and says so."""

from typing import Any

import orjson

from teg.domain.server import MAX_PAYLOAD_BYTES, encode_rpc_response

NOTE = "… [{left_out} characters left out: the answer was too long] …"


def fitted(message: Any) -> Any:
    """`message` itself when its response fits, else a shortened one with a note.

    Text keeps head and tail, a list its last lines; anything else becomes text first.
    """
    message = _encodable(message)
    if _fits(message):
        return message
    if isinstance(message, list):
        return _last_lines(message)
    text = message if isinstance(message, str) else orjson.dumps(message).decode()
    return _head_and_tail(text)


def _fits(message: Any) -> bool:
    return len(encode_rpc_response(message)) <= MAX_PAYLOAD_BYTES


def _encodable(message: Any) -> Any:
    """Lone surrogates (file names, foreign output) have no UTF-8 form: they become question marks."""
    try:
        encode_rpc_response(message)
    except TypeError:
        return str(message).encode("utf-8", "replace").decode()
    return message


def _head_and_tail(text: str) -> str:
    """The longest cut that fits, found by halving: how long JSON makes a character depends on the character."""
    kept, too_long = 0, min(len(text), MAX_PAYLOAD_BYTES)
    while too_long - kept > 1:
        middle = (kept + too_long) // 2
        kept, too_long = (middle, too_long) if _fits(_cut(text, middle)) else (kept, middle)
    return _cut(text, kept)


def _cut(text: str, kept: int) -> str:
    head = kept // 2
    tail = kept - head
    return text[:head] + "\n" + NOTE.format(left_out=len(text) - kept) + "\n" + text[len(text) - tail :]


def _last_lines(lines: list[Any]) -> list[Any]:
    kept, too_many = 0, len(lines)
    while too_many - kept > 1:
        middle = (kept + too_many) // 2
        kept, too_many = (middle, too_many) if _fits(_tail(lines, middle)) else (kept, middle)
    return _tail(lines, kept)


def _tail(lines: list[Any], kept: int) -> list[Any]:
    return [f"… [{len(lines) - kept} earlier lines left out: the answer was too long]", *lines[len(lines) - kept :]]
