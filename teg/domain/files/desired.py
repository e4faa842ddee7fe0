"""The wanted state of all remote files: asked of the server, kept for the time without one, ready to be applied."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from teg.domain.errors import Refused
from teg.domain.files.definitions import (
    CONTENT,
    FILES,
    MAX_TOTAL_BYTES,
    Definition,
    encode_content,
    parse_definitions,
)
from teg.domain.ports import AttributeSource, State

FILE_HASHES = "FILE_HASHES"
#: Contents asked for in one request. Few requests, because a server may limit messages (20 a second is common);
#: half as many after an answer that did not come in time (large files on a slow link).
CONTENTS_A_REQUEST = 64

_DEFINITIONS = "files/definitions"
_CONTENT = "files/content/"


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes that the server wants in a file."""

    data: bytes = field(repr=False)
    md5: str

    @classmethod
    def of(cls, data: bytes) -> "Content":
        return cls(data, hashlib.md5(data, usedforsecurity=False).hexdigest())

    def digest(self, write_version: Any) -> str:
        """Names one attempt: these bytes under this write version."""
        return f"{self.md5}/{orjson.dumps(write_version).decode()}"


@dataclass(frozen=True, slots=True)
class DesiredFiles:
    """A definition without a content is a file that is only mirrored; `problems` are per key."""

    definitions: Mapping[str, Definition] = field(default_factory=dict)
    contents: Mapping[str, Content] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said: `FILES`, the contents by key (a deleted one is absent), and `FILE_HASHES` as it has it.

    `problem` says that `FILES` is no JSON object: then nothing is known about any file.
    """

    files: Any
    contents: Mapping[str, Any]
    hashes: Any
    problem: str = ""


def ask(source: AttributeSource, data_path: str, contents_a_request: int) -> Answer:
    """Read definitions, then the contents they name, from the server.

    Raises:
        Unavailable: an answer did not come.
    """
    client, shared = source.request_attributes([FILE_HASHES], [FILES])
    files, hashes = shared.get(FILES), client.get(FILE_HASHES)
    try:
        keys = list(parse_definitions(files, data_path).usable)
    except Refused as reason:
        return Answer(None, {}, hashes, str(reason))
    contents: dict[str, Any] = {}
    for start in range(0, len(keys), contents_a_request):
        names = [CONTENT + key for key in keys[start : start + contents_a_request]]
        _, found = source.request_attributes([], names)
        contents |= {name.removeprefix(CONTENT): found[name] for name in names if found.get(name) is not None}
    return Answer(files, contents, hashes)


def plan_wanted(answer: Answer, data_path: str) -> DesiredFiles:
    """Check and encode everything; what is wrong with one file costs only that file."""
    files, values = answer.files, answer.contents
    parsed = parse_definitions(files, data_path)
    problems = dict(parsed.problems)
    contents: dict[str, Content] = {}
    room = MAX_TOTAL_BYTES
    for key, definition in parsed.usable.items():
        if values.get(key) is None:
            continue
        try:
            data = encode_content(definition, values[key])
            if len(data) > room:
                raise Refused(f"all contents together are more than {MAX_TOTAL_BYTES} bytes")
        except Refused as reason:
            problems[key] = str(reason)
        else:
            room -= len(data)
            contents[key] = Content.of(data)
    return DesiredFiles(parsed.usable, contents, problems)


class KeptAnswer:
    """The last good answer of the server in `State`: drift is undone, and leftovers are found, without a server."""

    def __init__(self, state: State) -> None:
        self._state = state

    def load(self) -> Answer:
        """The kept answer, without the server's hashes."""
        files = self._state.get(_DEFINITIONS)
        return Answer(files if isinstance(files, dict) else None, dict(self._contents()), None)

    def save(self, answer: Answer, before: Answer) -> None:
        """Write only what changed: every reconnect would otherwise wear the card."""
        if not same_json(answer.files, before.files):
            self._state.put(_DEFINITIONS, answer.files)
        for key, value in answer.contents.items():
            if key not in before.contents or not same_json(before.contents[key], value):
                self._state.put(_CONTENT + key, value)
        for key in before.contents.keys() - answer.contents.keys():
            self._state.delete(_CONTENT + key)

    def _contents(self) -> Iterator[tuple[str, Any]]:
        for name in self._state.keys(_CONTENT):
            yield name.removeprefix(_CONTENT), self._state.get(name)


def same_json(one: Any, other: Any) -> bool:
    """Python says 1 == True == 1.0; a file must not."""
    return bool(one == other) and orjson.dumps(one) == orjson.dumps(other)
