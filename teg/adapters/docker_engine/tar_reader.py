"""Tar members of a hostile archive, one after the other, in bounded memory and with one meaning for every reader.

`tarfile` reads extended headers of any length into memory, recurses over them, and expands sparse maps; and where two
readers may understand a header differently, the engine's (Go's archive/tar) counts. So its headers are decoded by
`tarfile`, block by block, and everything that is not plain is refused: sparse files in all their spellings above all,
which turn a few bytes into terabytes. Source: Go archive/tar reader.go, POSIX pax.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from teg.adapters.docker_engine.expansion import Read, exactly
from teg.domain.errors import Refused

_BLOCK = tarfile.BLOCKSIZE
_PIECE_BYTES = 1 << 20
_MAX_SPECIAL_BYTES = 1 << 20
_MAX_SPECIALS = 8  #: extended headers before one member
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=]{1,256})=")
_SIZE = re.compile(r"\d{1,18}", re.ASCII)
_WITHOUT_CONTENT = frozenset(b"123456")
_WITH_CONTENT = frozenset(b"\x0007")


@dataclass(frozen=True, slots=True)
class Member:
    """`kind` is the header's type flag: `0` a file (also for the old zero byte), `5` a directory, `2` a link, …"""

    name: str
    kind: str
    size: int
    target: str

    @property
    def is_file(self) -> bool:
        return self.kind == "0"


class TarReader:
    """Iterate over the members; `content` and `read_all` belong to the last one."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        while (member := self._next()) is not None:
            yield member

    def content(self) -> Iterator[bytes]:
        while self._left:
            piece = self._read(min(_PIECE_BYTES, self._left))
            if not piece:
                raise EOFError("it ends in the middle of a file")
            self._left -= len(piece)
            yield piece

    def take(self, size: int) -> bytes:
        """As `file.read(size)` on the last member."""
        piece = self._read(min(size, self._left)) if self._left else b""
        if self._left and size and not piece:
            raise EOFError("it ends in the middle of a file")
        self._left -= len(piece)
        return piece

    def read_all(self, limit_bytes: int, name: str) -> bytes:
        if self._left > limit_bytes:
            raise Refused(f"{name} in the archive is not a file of reasonable size")
        return b"".join(self.content())

    def _next(self) -> Member | None:
        name = target = size = None
        for _ in range(_MAX_SPECIALS + 1):
            self._skip()
            header = self._header()
            if header is None:
                return None
            kind, found = header
            if kind not in "xgLK":
                return self._member(kind, found, name, target, size)
            body = self._special(found)
            if kind == "L":
                name = _text(body.rstrip(b"\0"))
            elif kind == "K":
                target = _text(body.rstrip(b"\0"))
            elif kind == "x":
                records = _pax(body)
                name, target = records.get("path", name), records.get("linkpath", target)
                size = records.get("size", size)
        raise Refused("the archive has too many extended headers")

    def _member(
        self, kind: str, found: tarfile.TarInfo, name: str | None, target: str | None, size: str | None
    ) -> Member:
        name = found.name if name is None else name
        if ord(kind) in _WITHOUT_CONTENT or (kind == "\0" and (found.isdir() or name.endswith("/"))):
            return Member(name, "5" if kind == "\0" else kind, 0, found.linkname if target is None else target)
        if ord(kind) not in _WITH_CONTENT:
            raise Refused(f"the archive has a member of the unusual type {kind!r}: {name[:80]!r}")
        self._begin(_size(found.size if size is None else size))
        return Member(name, "0" if kind == "\0" else kind, self._left, "")

    def _header(self) -> tuple[str, tarfile.TarInfo] | None:
        block = exactly(self._read, _BLOCK, short_is_fine=True)
        if block == bytes(_BLOCK):
            if exactly(self._read, _BLOCK, short_is_fine=True).strip(b"\0"):
                raise Refused("the archive goes on after its end")
            return None
        if not block:
            return None
        if len(block) < _BLOCK:
            raise EOFError("it ends in the middle of a header")
        kind = chr(block[156])
        if kind == "S":
            raise Refused("the archive holds a sparse file")
        return kind, tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")

    def _special(self, found: tarfile.TarInfo) -> bytes:
        self._begin(_size(found.size))
        return self.read_all(_MAX_SPECIAL_BYTES, "an extended header")

    def _begin(self, size: int) -> None:
        self._left, self._padding = size, -size % _BLOCK

    def _skip(self) -> None:
        for _ in self.content():
            pass
        exactly(self._read, self._padding)
        self._padding = 0


def _size(value: int | str) -> int:
    if isinstance(value, str):
        if not _SIZE.fullmatch(value):
            raise Refused(f"the archive has a member of the impossible size {value[:40]!r}")
        value = int(value)
    if value < 0:
        raise Refused("the archive has a member of negative size")
    return value


def _pax(body: bytes) -> dict[str, str]:
    records: dict[str, str] = {}
    while body:
        start = _PAX_RECORD.match(body)
        if start is None or not start.end() <= (length := int(start[1])) - 1 < len(body) or body[length - 1] != 10:
            raise Refused("the archive has a damaged extended header")
        name = _text(start[2])
        if name.startswith("GNU.sparse"):
            raise Refused("the archive holds a sparse file")
        records[name] = _text(body[start.end() : length - 1])
        body = body[length:]
    return records


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
