"""What an operator may pass to a method: each `parse_*` returns checked values or refuses with the text to answer.

The texts of `run_command` and the two archive ranges are the reference gateway's, word for word.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from teg.domain.errors import Refused

COMMAND_TIMEOUT_S = 30
MAX_COMMAND_TIMEOUT_S = 60
MAX_ARGUMENTS = 256
#: 1 January 2025 and 1 January 2050, the reference's bounds of a republish.
EARLIEST_MS = 1_735_719_469_000
LATEST_MS = 2_524_637_869_000
MAX_LINES = 1_000
MAX_KEYS = 100
MAX_DEAD_LETTERS = 100
MAX_MINUTES = 24 * 60
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    timeout_s: int


@dataclass(frozen=True, slots=True)
class NamedCall:
    """A call of a command from the allow-list; None: the list's own time-out."""

    name: str
    arguments: dict[str, Any]
    timeout_s: int | None


@dataclass(frozen=True, slots=True)
class Span:
    """Both ends belong to it; Unix milliseconds."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class LogRequest:
    source: str
    lines: int


@dataclass(frozen=True, slots=True)
class DeadLetterRequest:
    """`ids` None means all of them."""

    action: str
    ids: tuple[int, ...] | None
    limit: int
    before_id: int | None


@dataclass(frozen=True, slots=True)
class LevelRequest:
    level: str
    minutes: int | None


def parse_command(params: Any) -> Command:
    """`{"command": ["ls", "-l"], "timeout_s": 30}`"""
    with _prefix("Running command failed"):
        body = _dictionary(params)
        if "command" not in body:
            raise Refused("missing 'command' in params")
        argv = body["command"]
        if not isinstance(argv, list) or not argv or not all(isinstance(part, str) for part in argv):
            raise Refused("'command' must be a list of strings")
        check_argv(argv)
        return Command(tuple(argv), _timeout_s(body) or COMMAND_TIMEOUT_S)


def parse_named_call(params: Any) -> NamedCall:
    """`{"name": "disk_free", "args": {"path": "/"}, "timeout_s": 10}`"""
    with _prefix("Running command failed"):
        body = _dictionary(params)
        if "name" not in body:
            raise Refused("missing 'name' in params: only the named commands of the allow-list can be run")
        name, arguments = body["name"], body.get("args")
        if not isinstance(name, str):
            raise Refused("'name' must be a string")
        if arguments is not None and not isinstance(arguments, dict):
            raise Refused("'args' must be a dictionary")
        return NamedCall(name, arguments or {}, _timeout_s(body))


def check_argv(argv: list[str]) -> None:
    """What the operating system cannot take as arguments."""
    if len(argv) > MAX_ARGUMENTS:
        raise Refused(f"'command' has {len(argv)} parts, at most {MAX_ARGUMENTS} are allowed")
    if not argv[0] or any("\0" in part for part in argv):
        raise Refused("'command' must name a program and must not contain NUL characters")


def parse_republish(params: Any) -> Span:
    with _prefix("Republishing archived messages failed"):
        span = _span(params)
        if span.start_ms <= EARLIEST_MS or span.end_ms >= LATEST_MS:
            raise Refused(
                "'start_timestamp_ms' and 'end_timestamp_ms' must be within the range of"
                " 1735719469_000 and 2524637869_000"
            )
        return span


def parse_republished_keys(params: Any) -> tuple[str, ...] | None:
    """`"keys": ["pm25", "t"]`, optional; None: all keys. Call it after `parse_republish`."""
    with _prefix("Republishing archived messages failed"):
        keys = _dictionary(params).get("keys")
        if keys is None:
            return None
        if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_KEYS or not all(_is_key(key) for key in keys):
            raise Refused(f"'keys' must be a list of 1 to {MAX_KEYS} keys")
        return tuple(sorted(set(keys)))


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and bool(key.strip())


def parse_discard(params: Any) -> Span:
    with _prefix("Discarding archived messages failed"):
        span = _span(params)
        if span.end_ms >= LATEST_MS:
            raise Refused("'end_timestamp_ms' must be < 2524637869_000")
        return span


def parse_stats(params: Any) -> Span | None:
    """None without a range; both ends or none."""
    if params in (None, {}, []):
        return None
    with _prefix("Reading archive statistics failed"):
        return _span(params)


def parse_logs(params: Any) -> LogRequest:
    """`{"source": "gateway", "lines": 50}`, both optional."""
    with _prefix("Reading logs failed"):
        body = _optional(params)
        source = body.get("source", "gateway")
        if source not in ("gateway", "controller", "calls"):
            raise Refused("'source' must be 'gateway', 'controller' or 'calls'")
        return LogRequest(source, _whole(body, "lines", 50, 1, MAX_LINES))


def parse_dead_letters(params: Any) -> DeadLetterRequest:
    """`{"action": "list"}`; `retry` and `drop` want `ids`: a list, or `"all"` in so many words."""
    with _prefix("Dead letters"):
        body = _optional(params)
        action = body.get("action", "list")
        if action not in ("list", "retry", "drop"):
            raise Refused("'action' must be 'list', 'retry' or 'drop'")
        limit = _whole(body, "limit", 20, 1, MAX_DEAD_LETTERS)
        before_id = _whole(body, "before_id", 0, 1, 2**62) if body.get("before_id") is not None else None
        return DeadLetterRequest(action, None if action == "list" else _ids(body), limit, before_id)


def parse_level(params: Any) -> LevelRequest:
    """`{"level": "DEBUG", "minutes": 30}`"""
    with _prefix("Setting the log level failed"):
        body = _dictionary(params)
        level = body.get("level")
        if not isinstance(level, str) or level.upper() not in LEVELS:
            raise Refused(f"'level' must be one of {', '.join(LEVELS)}")
        minutes = _whole(body, "minutes", 0, 1, MAX_MINUTES) if body.get("minutes") is not None else None
        return LevelRequest(level.upper(), minutes)


@contextmanager
def _prefix(text: str) -> Iterator[None]:
    """Puts the reference's "<What> failed: " before a refusal."""
    try:
        yield
    except Refused as reason:
        raise Refused(f"{text}: {reason}") from reason


def _dictionary(params: Any) -> dict[str, Any]:
    if not isinstance(params, dict):
        raise Refused("params is not a dictionary")
    return params


def _optional(params: Any) -> dict[str, Any]:
    """Dashboards send `null`, `{}` or `[]` where nothing is meant."""
    return {} if params in (None, []) else _dictionary(params)


def _timeout_s(body: dict[str, Any]) -> int | None:
    timeout_s = body.get("timeout_s")
    if timeout_s is None:
        return None
    if type(timeout_s) is not int:
        raise Refused("'timeout_s' must be an integer")
    if not 1 <= timeout_s <= MAX_COMMAND_TIMEOUT_S:
        raise Refused(f"'timeout_s' must be from 1 to {MAX_COMMAND_TIMEOUT_S}")
    return timeout_s


def _span(params: Any) -> Span:
    body = _dictionary(params)
    if "start_timestamp_ms" not in body or "end_timestamp_ms" not in body:
        raise Refused("missing 'start_timestamp_ms' or 'end_timestamp_ms' in params")
    start_ms, end_ms = body["start_timestamp_ms"], body["end_timestamp_ms"]
    if type(start_ms) is not int or type(end_ms) is not int:
        raise Refused("'start_timestamp_ms' and 'end_timestamp_ms' must be integers")
    if start_ms >= end_ms:
        raise Refused("'start_timestamp_ms' must be less than 'end_timestamp_ms'")
    if start_ms < -(2**62) or end_ms > 2**62:
        raise Refused("'start_timestamp_ms' and 'end_timestamp_ms' must be Unix milliseconds")
    return Span(start_ms, end_ms)


def _whole(body: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise Refused(f"'{name}' must be a whole number from {low} to {high}")
    return value


def _ids(body: dict[str, Any]) -> tuple[int, ...] | None:
    ids = body.get("ids")
    if ids == "all":
        return None
    if not isinstance(ids, list) or not ids or not all(type(i) is int and 0 < i < 2**62 for i in ids):
        raise Refused("'ids' must be a list of ids, or 'all'")
    return tuple(ids)
