"""Remote files for the status page: what the server was told of them, file by file. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from teg.domain.files.desired import FILE_HASHES
from teg.domain.files.reports import CONFIRM, ERROR, FILES_ERROR

#: Client attributes that a summary is made of; those of the contents (`FILE_READ_`) are large and not needed.
PREFIXES = (FILE_HASHES, FILES_ERROR, ERROR, CONFIRM)


def files_summary(told: Mapping[str, bytes]) -> dict[str, Any]:
    """`told`: attributes as JSON. `problem` is of the definitions as a whole; a file's own stands at the file."""
    attributes = {name: orjson.loads(value) for name, value in told.items()}
    hashes = attributes.get(FILE_HASHES)
    known: Mapping[str, Any] = hashes if isinstance(hashes, Mapping) else {}
    failed = {name.removeprefix(ERROR) for name, value in attributes.items() if name.startswith(ERROR) and value}
    return {
        "problem": attributes.get(FILES_ERROR) or "",
        "files": [_file(name, known.get(name), attributes) for name in sorted({*known, *failed})],
    }


def _file(name: str, entry: Any, attributes: Mapping[str, Any]) -> dict[str, Any]:
    entry = entry if isinstance(entry, Mapping) else {}
    return {
        "name": name,
        "hash": entry.get("hash"),
        "version": entry.get("write_version"),
        "confirmation": attributes.get(CONFIRM + name) or "",
        "error": attributes.get(ERROR + name) or "",
    }
