"""What the server wants of remote files: the shared attributes `FILES` and `FILE_CONTENT_<key>`, parsed and checked.

Pure: JSON values in, frozen records out. One bad entry costs only itself. Meaning of the fields: docs/files.md.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from teg.domain.errors import Refused

FILES = "FILES"
CONTENT = "FILE_CONTENT_"
#: Placeholders for the controller's data folder, as the reference gateway knows them; the longest first.
DATA_PATH_PLACEHOLDERS = ("%DATA_PATH%", "$DATA_PATH$", "$DATA_PATH")

MAX_FILE_BYTES = 1 << 20
#: All contents together: they are kept in memory, and the gateway runs with 150 MB.
MAX_TOTAL_BYTES = 16 << 20
#: `FILE_HASHES` names every file in one message, which the server cuts off above 65,536 bytes.
MAX_HASHES_BYTES = 50_000
MAX_KEY_LENGTH = 200
MAX_CONFIRM_S = 86_400

ENCODINGS = ("text", "json", "base64")


@dataclass(frozen=True, slots=True)
class Definition:
    """One entry of `FILES`; `path` is absolute, with the placeholders replaced, and not yet confined."""

    key: str
    path: str
    encoding: str = "text"
    write_version: Any = None
    restart_controller: bool = False
    create: bool = True
    mode: int | None = None
    confirm_s: int | None = None


@dataclass(frozen=True, slots=True)
class Definitions:
    """The usable entries in the order of their keys, and what is wrong with each of the others."""

    usable: Mapping[str, Definition]
    problems: Mapping[str, str]


def parse_definitions(files: Any, data_path: str) -> Definitions:
    """Parse the value of `FILES`; None (the attribute is not there) means no files.

    Raises:
        Refused: it is not a JSON object at all, so nothing is known about any file.
    """
    if files is None:
        return Definitions({}, {})
    if not isinstance(files, Mapping):
        raise Refused(f"FILES is a JSON {_type_name(files)}, not an object: choose the type JSON for this attribute")
    usable: dict[str, Definition] = {}
    problems: dict[str, str] = {}
    taken: dict[str, str] = {}
    room = MAX_HASHES_BYTES
    for key in sorted(files):
        try:
            definition = parse_definition(key, files[key], data_path)
            room -= _cost_in_hashes(definition)
            _refuse_unless_free(definition, taken, room)
        except Refused as reason:
            problems[key] = str(reason)
        else:
            usable[key] = definition
            taken[_spelling(definition.path)] = key
    return Definitions(usable, _bounded(problems))


def parse_definition(key: str, entry: Any, data_path: str) -> Definition:
    """Parse one entry; every field is checked, fields that we do not know are ignored.

    Raises:
        Refused: naming the first field that is wrong.
    """
    _check_key(key)
    if not isinstance(entry, Mapping):
        raise Refused(f"the definition is a JSON {_type_name(entry)}, not an object")
    return Definition(
        key=key,
        path=_path(entry.get("path"), data_path),
        encoding=_encoding(entry.get("encoding")),
        write_version=_write_version(entry.get("write_version")),
        restart_controller=_switch(entry, "restart_controller_on_change", default=False),
        create=_switch(entry, "create_if_not_exist", default=True),
        mode=_mode(entry.get("mode")),
        confirm_s=_confirm_s(entry.get("confirm_s")),
    )


def encode_content(definition: Definition, value: Any) -> bytes:
    """Return the bytes that the value of `FILE_CONTENT_<key>` stands for.

    Raises:
        Refused: the value does not fit the encoding, or the file would be too large.
    """
    content = _ENCODERS[definition.encoding](value)
    if len(content) > MAX_FILE_BYTES:
        raise Refused(f"the content has {len(content)} bytes, the limit is {MAX_FILE_BYTES}")
    return content


def _text_bytes(value: Any) -> bytes:
    """ThingsBoard turns the text "42" into the number 42 and "007" into 7; what is left of it is written."""
    if isinstance(value, (bool, int, float)):
        return json.dumps(value).encode()
    if not isinstance(value, str):
        raise Refused(f"the content is a JSON {_type_name(value)}, but the encoding is text: use the encoding json")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise Refused(f"the content is not valid text: {error.reason}") from error


def _json_bytes(value: Any) -> bytes:
    """Spelled like the reference gateway's `json.dumps`, so that a change of gateways rewrites no file."""
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(f"the content cannot be written as JSON: {error}") from error


def _base64_bytes(value: Any) -> bytes:
    """Blanks and line breaks are allowed. A number is refused: ThingsBoard may have cut zeros off its front."""
    if not isinstance(value, str):
        raise Refused(
            f"the content is a JSON {_type_name(value)}, not base64 text"
            " (ThingsBoard makes numbers of digits: end the text with a line break)"
        )
    try:
        return base64.b64decode("".join(value.split()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Refused(f"the content is not valid base64: {error}") from error


_ENCODERS = {"text": _text_bytes, "json": _json_bytes, "base64": _base64_bytes}


def _check_key(key: str) -> None:
    if not key.strip() or len(key) > MAX_KEY_LENGTH:
        raise Refused(f"a key has 1 to {MAX_KEY_LENGTH} characters")
    if "," in key or not key.isprintable():
        raise Refused("a key has no comma and no control characters (its attributes could not be asked for)")


def _path(path: Any, data_path: str) -> str:
    if not isinstance(path, str) or not path.strip():
        raise Refused('"path" is missing, or is not a text')
    for placeholder in DATA_PATH_PLACEHOLDERS:
        path = path.replace(placeholder, data_path)
    # The reference took it from wherever it was started; the controller's folder is the one that has a meaning here.
    return path if path.startswith("/") else f"{data_path}/{path.removeprefix('./')}"


def _encoding(encoding: Any) -> str:
    if encoding is None:
        return "text"
    if encoding not in ENCODINGS:
        raise Refused(f'"encoding" is {_shown(encoding)}, not one of {", ".join(ENCODINGS)}')
    return str(encoding)


def _write_version(version: Any) -> Any:
    if isinstance(version, (Mapping, list)):
        raise Refused(f'"write_version" is a JSON {_type_name(version)}, not a number or text')
    return version


def _switch(entry: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = entry.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refused(f'"{name}" is {_shown(value)}, not true or false')
    return value


def _mode(mode: Any) -> int | None:
    """Only as text: the number 640 could be meant in two ways."""
    if mode is None:
        return None
    if not isinstance(mode, str) or not re.fullmatch(r"0?[0-7]{3}", mode, re.ASCII):
        raise Refused(f'"mode" is {_shown(mode)}, not three octal digits as text, e.g. "0640"')
    return int(mode, 8)


def _confirm_s(seconds: Any) -> int | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 1 <= seconds <= MAX_CONFIRM_S:
        raise Refused(f'"confirm_s" is {_shown(seconds)}, not a whole number from 1 to {MAX_CONFIRM_S}')
    return seconds


def _cost_in_hashes(definition: Definition) -> int:
    entry = {"hash": "0" * 32, "write_version": definition.write_version}
    try:
        return len(orjson.dumps({definition.key: entry}))
    except orjson.JSONEncodeError as error:
        raise Refused(f'"write_version" or the key cannot be sent back: {error}') from error


def _refuse_unless_free(definition: Definition, taken: Mapping[str, str], room: int) -> None:
    if room < 0:
        raise Refused("too many files: FILE_HASHES would no longer fit into one message")
    if (other := taken.get(_spelling(definition.path))) is not None:
        raise Refused(f"'{other}' already stands for {definition.path}")


def _spelling(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _bounded(problems: dict[str, str], most: int = 100) -> dict[str, str]:
    """Ten thousand bad entries must not become ten thousand reports, nor a huge key a report that cuts the session."""
    return {key[:MAX_KEY_LENGTH]: problem for key, problem in list(problems.items())[:most]}


def _type_name(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _shown(value: Any) -> str:
    return str(value)[:40] if not isinstance(value, str) else repr(value[:40])
