"""Rows out of the raw pages of a damaged SQLite file and its write-ahead log, where SQLite itself gives up.

Reads table-leaf pages wherever they lie (www.sqlite.org/fileformat2.html), follows overflow chains, and takes nothing
on trust: the caller judges each row. Several versions of a page may be met (file, then the log's frames in order);
the newest comes first. Pages of the free list, whose rows were deleted, are left out.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

TABLE_LEAF = 0x0D
PAGE_BYTES = 1024
_LOG_MAGIC = (0x377F0682, 0x377F0683)
#: Longer chains than the largest message needs are loops.
_MAX_CHAIN = 1 << 14

Row = tuple[int, list[object]]


class Image:
    """The pages of one file set as they lie on the disk; mapped, not loaded. Close it."""

    def __init__(self, path: Path, log_path: Path) -> None:
        self._main, self._log = _mapped(path), _mapped(log_path)
        self.page_bytes = _page_bytes(self._main, self._log)
        self._pages = (len(self._main) + self.page_bytes - 1) // self.page_bytes
        self._logged: dict[int, list[int]] = {}
        for number, place in _frames(self._log, self.page_bytes):
            self._logged.setdefault(number, []).insert(0, place)

    def close(self) -> None:
        for mapped in (self._main, self._log):
            if isinstance(mapped, mmap.mmap):
                mapped.close()

    def rows(self) -> Iterator[Row]:
        """(rowid, values) of everything that looks like a row, newest version of a page first; may repeat ids."""
        free = self._free_pages()
        for number in range(1, max([self._pages, *self._logged]) + 1):
            for page in () if number in free else self._versions(number):
                yield from self._leaf_rows(page, 100 if number == 1 else 0)

    def _versions(self, number: int) -> Iterator[bytes]:
        for place in self._logged.get(number, ()):
            yield self._log[place : place + self.page_bytes]
        if 1 <= number <= self._pages:
            place = (number - 1) * self.page_bytes
            yield bytes(self._main[place : place + self.page_bytes]).ljust(self.page_bytes, b"\0")

    def _page(self, number: int) -> bytes | None:
        return next(self._versions(number), None)

    def _leaf_rows(self, page: bytes, start: int) -> Iterator[Row]:
        if page[start] != TABLE_LEAF:
            return
        (count,) = struct.unpack_from(">H", page, start + 3)
        for place in range(min(count, (self.page_bytes - start - 8) // 2)):
            (offset,) = struct.unpack_from(">H", page, start + 8 + 2 * place)
            try:
                yield self._cell(page, offset)
            except (IndexError, ValueError, struct.error):
                continue  # not a cell: this page, or this part of it, was overwritten

    def _cell(self, page: bytes, offset: int) -> Row:
        length, offset = _varint(page, offset)
        row_id, offset = _varint(page, offset)
        usable = self.page_bytes
        local = length
        if length > usable - 35:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (length - least) % (usable - 4)
            local = local if local <= usable - 35 else least
        payload = page[offset : offset + local]
        if local < length:
            (next_page,) = struct.unpack_from(">I", page, offset + local)
            payload += self._overflow(next_page, length - local)
        if len(payload) != length:
            raise ValueError("cut short")
        return row_id, _values(payload)

    def _overflow(self, number: int, missing: int) -> bytes:
        parts: list[bytes] = []
        for _ in range(_MAX_CHAIN):
            if missing <= 0:
                return b"".join(parts)
            page = self._page(number) or b""
            (number,) = struct.unpack_from(">I", page, 0)
            parts.append(page[4 : 4 + missing])
            missing -= self.page_bytes - 4
        raise ValueError("a chain without an end")

    def _free_pages(self) -> set[int]:
        """As far as the list can be followed."""
        free: set[int] = set()
        (trunk,) = struct.unpack_from(">I", self._page(1) or b"\0" * 100, 32)
        while trunk not in free and (page := self._page(trunk)) is not None:
            free.add(trunk)
            trunk, count = struct.unpack_from(">II", page, 0)
            leaves = min(count, self.page_bytes // 4 - 2)
            free |= set(struct.unpack_from(f">{leaves}I", page, 8))
        return free


def _mapped(path: Path) -> mmap.mmap | bytes:
    if not path.exists() or path.stat().st_size == 0:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _page_bytes(main: mmap.mmap | bytes, log: mmap.mmap | bytes) -> int:
    """By the header of the file or of the log; ours, when both are gone."""
    candidates: list[int] = []
    if main[:16] == b"SQLite format 3\0" and len(main) >= 18:
        candidates += struct.unpack_from(">H", main, 16)
    if len(log) >= 32 and struct.unpack_from(">I", log)[0] in _LOG_MAGIC:
        candidates += struct.unpack_from(">I", log, 8)
    return next((size for size in candidates if size in (512, 1024, 2048, 4096, 8192, 16384, 32768)), PAGE_BYTES)


def _frames(log: mmap.mmap | bytes, page_bytes: int) -> list[tuple[int, int]]:
    """(page number, place of the page), oldest first; frames of an earlier turn of the log lie behind newer ones."""
    step = page_bytes + 24
    salts = log[16:24]
    frames = [
        (log[place + 8 : place + 16] == salts, struct.unpack_from(">I", log, place)[0], place + 24)
        for place in range(32, len(log) - step + 1, step)
    ]
    frames.sort(key=lambda frame: frame[0])  # stable: the current turn comes last and so counts as newest
    return [(number, place) for _, number, place in frames if number]


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for place in range(8):
        byte = data[offset + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, offset + place + 1
    value = value << 8 | data[offset + 8]
    return value - (1 << 64) * (value >> 63), offset + 9


_INTEGER_BYTES: Mapping[int, int] = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _values(payload: bytes) -> list[object]:
    """Text comes as `bytearray`, so that it can be told from a blob and be undecodable."""
    end, offset = _varint(payload, 0)
    if not 0 < end <= len(payload):
        raise ValueError("no record header")
    kinds: list[int] = []
    while offset < end:
        kind, offset = _varint(payload, offset)
        kinds.append(kind)
    values: list[object] = []
    for kind in kinds:
        value, size = _value(payload, offset, kind)
        values.append(value)
        offset += size
    if offset != len(payload):
        raise ValueError("lengths do not add up")
    return values


def _value(payload: bytes, offset: int, kind: int) -> tuple[object, int]:
    if size := _INTEGER_BYTES.get(kind):
        return int.from_bytes(payload[offset : offset + size], "big", signed=True), size
    if kind in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[kind], 0
    if kind == 7:
        return struct.unpack_from(">d", payload, offset)[0], 8
    if kind < 12:
        raise ValueError("no such kind of value")
    size = (kind - 12) // 2
    data = payload[offset : offset + size]
    return (bytearray(data) if kind % 2 else bytes(data)), size
