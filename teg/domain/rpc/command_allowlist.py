"""The allow-list of `run_command`: named commands whose parameters are checked before they become arguments.

    [commands.disk_free]
    description = "Free space"
    argv = ["df", "-h", "{path}"]
    timeout_s = 10

    [commands.disk_free.parameters.path]
    type = "choice"
    choices = ["/", "/data"]

A placeholder stays inside its own argument: no value can add an argument, and no shell is involved.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from teg.domain.errors import Refused
from teg.domain.rpc.linear_pattern import LinearPattern
from teg.domain.rpc.parameters import COMMAND_TIMEOUT_S, MAX_COMMAND_TIMEOUT_S, Command, NamedCall

MAX_TEXT = 256
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """`choices` for a choice, `low`/`high` for an integer, `pattern` for a text (the whole of it, `shape` in words)."""

    type: str
    choices: tuple[str, ...] = ()
    low: int = -(2**31)
    high: int = 2**31
    pattern: LinearPattern | None = None
    shape: str = ""

    def as_argument(self, name: str, value: Any) -> str:
        if self.type == "integer":
            return self._integer(name, value)
        if not isinstance(value, str):
            raise Refused(f"'{name}' must be a string")
        if self.type == "choice" and value not in self.choices:
            raise Refused(f"'{name}' must be one of {', '.join(self.choices)}")
        if self.pattern is not None and not self._fits(self.pattern, value):
            raise Refused(f"'{name}' must match {self.shape}")
        return value

    def _fits(self, pattern: LinearPattern, value: str) -> bool:
        return len(value) <= MAX_TEXT and "\0" not in value and pattern.fullmatch(value)

    def _integer(self, name: str, value: Any) -> str:
        if type(value) is not int or not self.low <= value <= self.high:
            raise Refused(f"'{name}' must be an integer from {self.low} to {self.high}")
        return str(value)


@dataclass(frozen=True, slots=True)
class NamedCommand:
    description: str
    argv: tuple[str, ...]
    timeout_s: int
    parameters: Mapping[str, Parameter]

    def filled(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        if missing := sorted(self.parameters.keys() - arguments.keys()):
            raise Refused(f"missing {', '.join(map(repr, missing))} in 'args'")
        if unknown := sorted(arguments.keys() - self.parameters.keys()):
            raise Refused(f"unknown {', '.join(repr(name[:60]) for name in unknown[:5])} in 'args'")
        values = {name: spec.as_argument(name, arguments[name]) for name, spec in self.parameters.items()}
        return tuple(self._argument(template, values) for template in self.argv)

    @staticmethod
    def _argument(template: str, values: Mapping[str, str]) -> str:
        argument = _PLACEHOLDER.sub(lambda found: values[found[1]], template)
        if argument.startswith("-") and not template.startswith("-"):
            raise Refused(f"{argument[:60]!r} would be read as an option")
        return argument


@dataclass(frozen=True, slots=True)
class CommandList:
    commands: Mapping[str, NamedCommand]

    def command(self, call: NamedCall) -> Command:
        """Raises Refused with the text to answer when the call does not fit the list."""
        found = self.commands.get(call.name)
        if found is None:
            known = ", ".join(sorted(self.commands)) or "none"
            raise Refused(
                f"Running command failed: no command {call.name[:60]!r} in the allow-list (there are: {known})"
            )
        try:
            return Command(found.filled(call.arguments), call.timeout_s or found.timeout_s)
        except Refused as reason:
            raise Refused(f"Running command failed: {reason}") from reason


def parse_command_list(text: str) -> CommandList:
    """Read an allow-list file.

    Raises:
        Refused: naming the first thing that is wrong; a list with an error allows nothing.
    """
    try:
        body = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"not TOML: {error}") from error
    if unknown := sorted(body.keys() - {"commands"}):
        raise Refused(f"unknown section {unknown[0]!r}; only [commands.<name>] is known")
    return CommandList({name: _named(name, spec) for name, spec in _table(body, "commands").items()})


def _named(name: str, spec: Any) -> NamedCommand:
    where = f"commands.{name}"
    if not _NAME.fullmatch(name):
        raise Refused(f"{where}: a name is a-z, 0-9, '_' and '-', at most 64 characters")
    _only(where, spec, {"description", "argv", "timeout_s", "parameters"})
    parameters = {
        key: _parameter(f"{where}.parameters.{key}", value) for key, value in _table(spec, "parameters").items()
    }
    return NamedCommand(
        str(spec.get("description", "")), _argv(where, spec, parameters), _timeout(where, spec), parameters
    )


def _argv(where: str, spec: dict[str, Any], parameters: Mapping[str, Parameter]) -> tuple[str, ...]:
    argv = spec.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(part, str) and part for part in argv):
        raise Refused(f"{where}: argv must be a list of strings that are not empty")
    if _PLACEHOLDER.search(argv[0]) or any("\0" in part for part in argv):
        raise Refused(f"{where}: the program itself cannot be a placeholder, and NUL characters are not allowed")
    used = {found for part in argv for found in _PLACEHOLDER.findall(part)}
    if used != parameters.keys():
        odd = ", ".join(sorted(used ^ parameters.keys()))
        raise Refused(f"{where}: placeholders and parameters differ in: {odd}")
    return tuple(argv)


def _timeout(where: str, spec: dict[str, Any]) -> int:
    timeout_s = spec.get("timeout_s", COMMAND_TIMEOUT_S)
    if type(timeout_s) is not int or not 1 <= timeout_s <= MAX_COMMAND_TIMEOUT_S:
        raise Refused(f"{where}: timeout_s must be from 1 to {MAX_COMMAND_TIMEOUT_S}")
    return timeout_s


def _parameter(where: str, spec: Any) -> Parameter:
    _only(where, spec, {"type", "choices", "min", "max", "pattern"})
    kind = spec.get("type")
    if kind == "choice":
        return Parameter("choice", choices=_choices(where, spec.get("choices")))
    if kind == "integer":
        low, high = spec.get("min", -(2**31)), spec.get("max", 2**31)
        if type(low) is not int or type(high) is not int or low > high:
            raise Refused(f"{where}: min and max must be integers, min not above max")
        return Parameter("integer", low=low, high=high)
    if kind == "text":
        shape = spec.get("pattern")
        return Parameter("text", pattern=_pattern(where, shape), shape=shape)
    raise Refused(f"{where}: type must be 'choice', 'integer' or 'text'")


def _choices(where: str, choices: Any) -> tuple[str, ...]:
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
        raise Refused(f"{where}: choices must be a list of strings")
    return tuple(choices)


def _pattern(where: str, pattern: Any) -> LinearPattern:
    if not isinstance(pattern, str) or not pattern:
        raise Refused(f"{where}: a text needs a pattern (a regular expression for the whole value)")
    try:
        return LinearPattern(pattern)
    except Refused as reason:
        raise Refused(f"{where}: {reason}") from reason


def _table(body: Any, name: str) -> dict[str, Any]:
    found = body.get(name, {})
    if not isinstance(found, dict):
        raise Refused(f"{name!r} must be a table")
    return found


def _only(where: str, spec: Any, known: set[str]) -> None:
    if not isinstance(spec, dict):
        raise Refused(f"{where} must be a table")
    if unknown := sorted(spec.keys() - known):
        raise Refused(f"{where}: unknown {unknown[0]!r}; known are {', '.join(sorted(known))}")
