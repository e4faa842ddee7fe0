"""The checksums ThingsBoard writes for software packages, fed piece by piece.

The server writes Guava's `HashCode.toString()`: lower-case hex of the bytes, and those are little-endian for CRC32 and
both Murmur hashes. `cbf43926`, as other tools print a CRC32, is `2639f4cb` there.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

from teg.domain.errors import Refused
from teg.domain.ota.murmur3 import Murmur3x32, Murmur3x128


class Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class Crc32:
    """The usual CRC-32 (zlib's), written little-endian."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)

    def hexdigest(self) -> str:
        return self._crc.to_bytes(4, "little").hex()


_HASHERS: dict[str, Callable[[], Hasher]] = {
    "MD5": lambda: hashlib.md5(usedforsecurity=False),
    "SHA256": hashlib.sha256,
    "SHA384": hashlib.sha384,
    "SHA512": hashlib.sha512,
    "CRC32": Crc32,
    "MURMUR3_32": Murmur3x32,
    "MURMUR3_128": Murmur3x128,
}
ALGORITHMS = tuple(_HASHERS)


def new_hasher(algorithm: str) -> Hasher:
    """Raises Refused for an algorithm the server does not offer."""
    if algorithm not in _HASHERS:
        raise Refused(f"checksum algorithm {algorithm[:40]!r} is none of {', '.join(ALGORITHMS)}")
    return _HASHERS[algorithm]()


def checksum(algorithm: str, pieces: Iterable[bytes]) -> str:
    """Lower-case hex, as ThingsBoard writes it in `sw_checksum`."""
    hasher = new_hasher(algorithm)
    for piece in pieces:
        hasher.update(piece)
    return hasher.hexdigest()
