"""MurmurHash3 of Austin Appleby (public domain), 32 and 128 bits for x64, seed 0: two OTA checksums."""

_M32, _M64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


def murmur3_32(data: bytes) -> int:
    h = 0
    whole = len(data) - len(data) % 4
    for start in range(0, whole, 4):
        h ^= _scramble32(int.from_bytes(data[start : start + 4], "little"))
        h = (_rotate(h, 13, 32) * 5 + 0xE6546B64) & _M32
    h ^= _scramble32(int.from_bytes(data[whole:], "little"))
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & _M32
    h = (h ^ h >> 13) * 0xC2B2AE35 & _M32
    return h ^ h >> 16


def murmur3_128(data: bytes) -> bytes:
    """The two halves, each little-endian, as Guava's HashCode.asBytes gives them."""
    h1 = h2 = 0
    whole = len(data) - len(data) % 16
    for start in range(0, whole, 16):
        h1 ^= _scramble64(data[start : start + 8], _C1, 31, _C2)
        h1 = ((_rotate(h1, 27, 64) + h2) * 5 + 0x52DCE729) & _M64
        h2 ^= _scramble64(data[start + 8 : start + 16], _C2, 33, _C1)
        h2 = ((_rotate(h2, 31, 64) + h1) * 5 + 0x38495AB5) & _M64
    tail = data[whole:]
    h2 ^= _scramble64(tail[8:], _C2, 33, _C1) ^ len(data)
    h1 ^= _scramble64(tail[:8], _C1, 31, _C2) ^ len(data)
    return _finish128(h1, h2)


def _finish128(h1: int, h2: int) -> bytes:
    h1 = (h1 + h2) & _M64
    h2 = (h2 + h1) & _M64
    h1, h2 = _mix64(h1), _mix64(h2)
    h1 = (h1 + h2) & _M64
    h2 = (h2 + h1) & _M64
    return h1.to_bytes(8, "little") + h2.to_bytes(8, "little")


def _scramble32(k: int) -> int:
    return _rotate(k * 0xCC9E2D51 & _M32, 15, 32) * 0x1B873593 & _M32


def _scramble64(part: bytes, first: int, turn: int, second: int) -> int:
    return _rotate(int.from_bytes(part, "little") * first & _M64, turn, 64) * second & _M64


def _mix64(h: int) -> int:
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & _M64
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & _M64
    return h ^ h >> 33


def _rotate(value: int, turn: int, bits: int) -> int:
    return (value << turn | value >> bits - turn) & ((1 << bits) - 1)
