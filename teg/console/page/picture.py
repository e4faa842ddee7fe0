"""What the page shows at a moment: the gateway's own account, as `teg status` tells it, and what stands around it.

A part that cannot be read now holds `{"error": why}`; the others are shown all the same. Every list is bounded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from teg.console.health import troubles
from teg.domain.errors import Refused, Unavailable
from teg.domain.rpc.journal import Entry

KEYS, POINTS, KEY_CHARACTERS, VALUE_CHARACTERS = 60, 40, 80, 120
CALLS, LETTERS, FILES, TEXT_CHARACTERS = 30, 20, 100, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSources:
    """Where the page looks; what it reads it never changes. All may raise Unavailable."""

    report: Callable[[], bytes]  #: what the status socket answers
    tally: Callable[[], dict[str, int]]
    published: Callable[[], tuple[int, float]]  #: acknowledged publishes, and the seconds that they took together
    published_bytes: Callable[[], int]
    newest: Callable[[], Sequence[bytes]]
    update: Callable[[], Mapping[str, Any]]
    files: Callable[[], Mapping[str, Any]]
    calls: Callable[[int], Sequence[Entry]]
    lanes: Callable[[], Mapping[str, Any]]
    dead_letters: Callable[[int], Sequence[Mapping[str, Any]]]


def picture(sources: PageSources) -> dict[str, Any]:
    status = orjson.loads(sources.report())
    return {
        "status": status,
        "trouble": [asdict(trouble) for trouble in troubles(status)],
        "newest": _or_error(lambda: newest_values(sources.newest())),
        "update": _or_error(sources.update),
        "files": _or_error(lambda: _files(sources.files())),
        "calls": _or_error(lambda: [call_row(entry) for entry in reversed(sources.calls(CALLS))]),
        "tasks": _or_error(sources.lanes),
        "dead_letters": _or_error(lambda: [_letter(letter) for letter in sources.dead_letters(LETTERS)]),
    }


def newest_values(records: Sequence[bytes]) -> list[dict[str, Any]]:
    """By key: the newest value, when it was measured, and the numbers before it, oldest first."""
    found: dict[str, dict[str, Any]] = {}
    for ts_ms, key, value in _values(records):
        if key not in found and len(found) < KEYS:
            found[key] = {"key": key[:KEY_CHARACTERS], "value": shown(value), "ts_ms": ts_ms, "points": []}
        points = found[key]["points"] if key in found else []
        if len(points) < POINTS and isinstance(value, int | float) and not isinstance(value, bool):
            points.append(value)
    for row in found.values():
        row["points"].reverse()
    return sorted(found.values(), key=lambda row: str(row["key"]))


def _values(records: Sequence[bytes]) -> list[tuple[Any, str, Any]]:
    """Newest first; what is no record of the known shape is left out: the archive holds what a controller wrote."""
    found: list[tuple[Any, str, Any]] = []
    for text in records:
        try:
            record = orjson.loads(text)
        except orjson.JSONDecodeError:
            continue
        values = record.get("values") if isinstance(record, dict) else None
        if isinstance(values, dict):
            found += [(record.get("ts"), key, value) for key, value in values.items()]
    return found


def shown(value: Any) -> Any:
    """Numbers and truth as they are, the rest as text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"


def call_row(entry: Entry) -> dict[str, Any]:
    """`here`: it came from this page, not from the server."""
    return {
        "received_ms": entry.received_ms,
        "id": entry.key.request_id,
        "here": entry.key.request_id < 0,
        "method": entry.key.method[:KEY_CHARACTERS],
        "params": entry.params[:TEXT_CHARACTERS],
        "state": entry.state,
        "answer": (entry.answer or "")[:TEXT_CHARACTERS],
    }


def _files(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {**summary, "files": summary["files"][:FILES], "count": len(summary["files"])}


def _letter(letter: Mapping[str, Any]) -> dict[str, Any]:
    return {**letter, "message": letter["message"][:TEXT_CHARACTERS], "reason": letter["reason"][:TEXT_CHARACTERS]}


def _or_error(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (Unavailable, Refused) as reason:
        return {"error": str(reason)}
