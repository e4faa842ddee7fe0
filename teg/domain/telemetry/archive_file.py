"""The form of an exported archive (docs/archive-files.md): lines of JSON, a header, a record each, and a trailer with
their number and checksum. What is read may come from anybody's stick: every line is bounded and looked at."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from teg.domain.errors import Refused

FORMAT, VERSION = "teg-archive", 1
#: The longest record, and what stands around it.
MAX_LINE_BYTES = 70_000
MAX_NAME_CHARACTERS = 255

_RECORD = re.compile(rb'\{"id":(\d{1,19}),"delivered":(true|false),"record":(\{.*\})\}\n')


class Row(NamedTuple):
    """`id` in the archive it came from; `text` is the JSON that was, or is to be, published."""

    id: int
    delivered: bool
    text: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose archive it is. `archive` is the archive's own name; `device` the one on the server, empty if not known."""

    device: str
    archive: str
    exported_ms: int


def encode(origin: Origin, rows: Iterable[Row]) -> Iterator[bytes]:
    """The lines of a file. A record's line breaks, which can only stand between its values, become blanks."""
    digest, count = hashlib.sha256(), 0
    header = {"format": FORMAT, "version": VERSION, "device": origin.device, "archive": origin.archive}
    line = orjson.dumps({**header, "exported_ms": origin.exported_ms}) + b"\n"
    digest.update(line)
    yield line
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last one is the trailer's
        text = row.text.replace(b"\n", b" ").replace(b"\r", b" ")
        flag = b"true" if row.delivered else b"false"
        line = b'{"id":%d,"delivered":%s,"record":%s}\n' % (row.id, flag, text)
        digest.update(line)
        yield line
    yield orjson.dumps({"records": count, "sha256": digest.hexdigest()}) + b"\n"


def decode(lines: Iterable[bytes]) -> Iterator[Origin | Row | str]:
    """First the origin, then each record, at last the checksum.

    Raises:
        Refused: it is no such file, or its checksum or its end is not what it should be.
    """
    digest, count = hashlib.sha256(), 0
    source = iter(lines)
    first = next(source, b"")
    yield _origin(first)
    digest.update(first)
    for number, line in enumerate(source, 2):
        found = _RECORD.fullmatch(line)
        if found is None:
            yield _trailer(line, number, count, digest.hexdigest())
            if next(source, b""):
                raise Refused("there is something behind its end")
            return
        digest.update(line)
        count += 1
        yield Row(int(found[1]), found[2] == b"true", found[3])
    raise Refused(f"it ends after {count} records, without its last line: the copy is not complete")


def _origin(line: bytes) -> Origin:
    header = _object(line)
    if header.get("format") != FORMAT:
        raise Refused("it is no exported archive")
    if header.get("version") != VERSION:
        raise Refused(f"it has version {header.get('version')!r}, this program knows {VERSION}")
    device, archive, exported_ms = (header.get(name) for name in ("device", "archive", "exported_ms"))
    if not (isinstance(device, str) and isinstance(archive, str) and isinstance(exported_ms, int)):
        raise Refused("its first line is damaged")
    if len(device) > MAX_NAME_CHARACTERS or not device.isprintable():
        raise Refused("the name of its device is none")
    return Origin(device, archive, exported_ms)


def _trailer(line: bytes, number: int, count: int, checksum: str) -> str:
    trailer = _object(line)
    if "records" not in trailer:
        raise Refused(f"line {number} is damaged")
    if trailer != {"records": count, "sha256": checksum}:
        raise Refused("its checksum does not match: it was changed or damaged on the way")
    return checksum


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
