"""Compressed streams, expanded piece by piece: memory stays small whatever they claim, and nothing is unbounded."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from teg.domain.errors import Refused

Read = Callable[[int], bytes]  #: as `file.read(n)`: at most n bytes, empty at the end

_PIECE_BYTES = 64 << 10
#: `xz -9` needs 65 MiB to expand; the format allows 4 GiB.
_XZ_MEMORY_BYTES = 80 << 20
_UNKNOWN = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"\x1f\x9d": "compress"}


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gunzip:
    """zlib's object with the manners of bz2's and lzma's: it keeps what it could not use yet."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_FORMATS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": _Gunzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY_BYTES),
}
_LONGEST_MAGIC = 6


class Budget:
    """What may still be read; shared by the streams that are bounded together."""

    def __init__(self, limit: int, complaint: str) -> None:
        self._left = limit
        self._complaint = complaint

    def take(self, count: int) -> None:
        """Raises Refused with the complaint once more than the limit was taken."""
        self._left -= count
        if self._left < 0:
            raise Refused(self._complaint)


def expanded(read: Read, budget: Budget) -> Read:
    """`read` without its gzip, bzip2 or xz compression, if it has one; every byte counts against `budget`.

    The result raises EOFError where a compressed stream is torn, and the formats' own exceptions where it is damaged.
    """
    head = exactly(read, _LONGEST_MAGIC, short_is_fine=True)
    for magic, name in _UNKNOWN.items():
        if head.startswith(magic):
            raise Refused(f"{name} compression is not supported: use gzip, or none")
    for magic, make in _FORMATS.items():
        if head.startswith(magic):
            return _counted(_Expansion(head, read, magic, make).read, budget)
    return _counted(_after(head, read), budget)


def exactly(read: Read, size: int, *, short_is_fine: bool = False) -> bytes:
    """`size` bytes; raises EOFError (or returns fewer) where the stream ends earlier. Memory: `size`."""
    found = bytearray()
    while len(found) < size:
        piece = read(size - len(found))
        if not piece:
            if short_is_fine:
                break
            raise EOFError("it ends in the middle of a file")
        found += piece
    return bytes(found)


def _counted(read: Read, budget: Budget) -> Read:
    def counted(size: int) -> bytes:
        piece = read(size)
        budget.take(len(piece))
        return piece

    return counted


def _after(head: bytes, read: Read) -> Read:
    waiting = bytearray(head)

    def joined(size: int) -> bytes:
        if not waiting:
            return read(size)
        piece = bytes(waiting[:size])
        del waiting[:size]
        return piece

    return joined


class _Expansion:
    """One compressed file: one or more streams of the same format, one after the other."""

    def __init__(self, head: bytes, read: Read, magic: bytes, make: Callable[[], _Decompressor]) -> None:
        self._waiting = head
        self._read = read
        self._magic = magic
        self._make = make
        self._inner: _Decompressor | None = make()

    def read(self, size: int) -> bytes:
        while self._inner is not None:
            data, self._waiting = self._waiting, b""
            piece = self._inner.decompress(data, size)
            if self._inner.eof:
                self._follow_up(self._inner.unused_data)
            elif not piece:
                self._refill()
            if piece:
                return piece
        return b""

    def _refill(self) -> None:
        self._waiting = self._read(_PIECE_BYTES)
        if not self._waiting:
            raise EOFError("its compressed data ends too early")

    def _follow_up(self, rest: bytes) -> None:
        rest += exactly(self._read, max(0, _LONGEST_MAGIC - len(rest)), short_is_fine=True)
        if rest and not rest.startswith(self._magic):
            raise Refused("something follows its compressed data")
        self._waiting, self._inner = rest, self._make() if rest else None
