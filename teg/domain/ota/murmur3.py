"""MurmurHash3 (Austin Appleby, public domain), 32 bits and 128 bits for x64, seed 0, fed piece by piece.

ThingsBoard offers both as package checksums. Written here instead of taking a library:
docs/decisions/0040-checksums-of-packages.md.
"""

import struct

_M32, _M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


class Murmur3x32:
    """`update` with pieces of any size; `digest` is little-endian, as Guava's `HashCode.asBytes`."""

    def __init__(self) -> None:
        self._hash = 0
        self._length = 0
        self._rest = b""

    def update(self, data: bytes) -> None:
        self._length += len(data)
        data = self._rest + data
        whole = len(data) & ~3
        h = self._hash
        for (k,) in struct.iter_unpack("<I", data[:whole]):
            k = k * 0xCC9E2D51 & _M32
            k = (k << 15 | k >> 17) * 0x1B873593 & _M32
            h ^= k
            h = ((h << 13 | h >> 19) * 5 + 0xE6546B64) & _M32
        self._hash, self._rest = h, data[whole:]

    def digest(self) -> bytes:
        k = int.from_bytes(self._rest, "little") * 0xCC9E2D51 & _M32
        h = self._hash ^ ((k << 15 | k >> 17) * 0x1B873593 & _M32) ^ self._length & _M32
        h = (h ^ h >> 16) * 0x85EBCA6B & _M32
        h = (h ^ h >> 13) * 0xC2B2AE35 & _M32
        return (h ^ h >> 16).to_bytes(4, "little")

    def hexdigest(self) -> str:
        return self.digest().hex()


class Murmur3x128:
    """The two 64-bit halves, each little-endian, the first one first."""

    def __init__(self) -> None:
        self._h1 = self._h2 = 0
        self._length = 0
        self._rest = b""

    def update(self, data: bytes) -> None:
        self._length += len(data)
        data = self._rest + data
        whole = len(data) & ~15
        h1, h2 = self._h1, self._h2
        for k1, k2 in struct.iter_unpack("<QQ", data[:whole]):
            h1 ^= _first(k1)
            h1 = (((h1 << 27 | h1 >> 37) + h2) * 5 + 0x52DCE729) & _M64
            h2 ^= _second(k2)
            h2 = (((h2 << 31 | h2 >> 33) + h1) * 5 + 0x38495AB5) & _M64
        self._h1, self._h2, self._rest = h1, h2, data[whole:]

    def digest(self) -> bytes:
        h1 = self._h1 ^ _first(int.from_bytes(self._rest[:8], "little")) ^ self._length
        h2 = self._h2 ^ _second(int.from_bytes(self._rest[8:], "little")) ^ self._length
        h1 = (h1 + h2) & _M64
        h2 = (h2 + h1) & _M64
        h1, h2 = _mixed(h1), _mixed(h2)
        h1 = (h1 + h2) & _M64
        h2 = (h2 + h1) & _M64
        return struct.pack("<QQ", h1, h2)

    def hexdigest(self) -> str:
        return self.digest().hex()


def _first(k: int) -> int:
    k = k * _C1 & _M64
    return (k << 31 | k >> 33) * _C2 & _M64


def _second(k: int) -> int:
    k = k * _C2 & _M64
    return (k << 33 | k >> 31) * _C1 & _M64


def _mixed(h: int) -> int:
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & _M64
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & _M64
    return h ^ h >> 33
