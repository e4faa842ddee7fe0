"""Software and firmware packages: their attributes, their checksums, and their download in chunks.

Source: ThingsBoard's DefaultOtaPackageStateService and the chunk topics of MqttTransportHandler.
"""

import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Any

MAX_CHUNK_BYTES = 65_536

#: All attributes of a package in the order in which un-assigning deletes them.
_ALL = ("title", "version", "ts", "state", "size", "checksum", "checksum_algorithm", "url", "tag")
#: Those that a package may or may not have, in the order in which an assignment deletes them.
_OPTIONAL = ("tag", "url", "size", "checksum", "checksum_algorithm")


class PackageError(Exception):
    """`text` goes to the error topic (none if empty), then the session is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(text or "chunk size is no number")
        self.text = text


@dataclass(frozen=True, slots=True)
class Package:
    """Stored on the server (`data`) or elsewhere (`url`); `checksum` overrides the right one."""

    title: str
    version: str
    data: bytes | None = None
    url: str | None = None
    tag: str | None = None
    #: Of a stored package SHA256 unless given; of a URL only what the operator filled in.
    algorithm: str | None = None
    checksum: str | None = None

    def attributes(self, kind: str) -> dict[str, Any]:
        """Shared attributes as they are written, never type-cast: a version "1.10" stays text."""
        values: dict[str, Any] = {"title": self.title, "version": self.version}
        if self.tag is not None:
            values["tag"] = self.tag
        if self.url is not None:
            values["url"] = self.url
        if self.data is not None:
            values["size"] = len(self.data)
        values |= self._checksums()
        return {f"{kind}_{name}": value for name, value in values.items()}

    @property
    def lacks_algorithm(self) -> bool:
        """A package with a URL as the web page of 4.2 and 4.2.1 makes it."""
        return self.data is None and self.algorithm is None

    def _checksums(self) -> dict[str, str]:
        algorithm, text = self.algorithm, self.checksum
        if self.data is not None:
            algorithm = algorithm or "SHA256"
            text = text or checksum(algorithm, self.data)
        values = {"checksum_algorithm": algorithm, "checksum": text}
        return {name: value for name, value in values.items() if value is not None}

    def stale_attributes(self, kind: str) -> list[str]:
        present = self.attributes(kind)
        return [f"{kind}_{name}" for name in _OPTIONAL if f"{kind}_{name}" not in present]

    def targets(self, kind: str, ts_ms: int) -> dict[str, Any]:
        """Telemetry the server writes on assignment, besides the state."""
        values = {f"target_{kind}_title": self.title, f"target_{kind}_version": self.version}
        if self.tag is not None:
            values[f"target_{kind}_tag"] = self.tag
        return {**values, f"target_{kind}_ts": ts_ms}


def all_attributes(kind: str) -> list[str]:
    return [f"{kind}_{name}" for name in _ALL]


def checksum(algorithm: str, data: bytes) -> str:
    """Lower-case hex, as the server writes it. Raise ValueError for an algorithm it does not know."""
    if algorithm in ("MD5", "SHA256", "SHA384", "SHA512"):
        return hashlib.new(algorithm.lower(), data).hexdigest()
    if algorithm == "CRC32":
        return zlib.crc32(data).to_bytes(4, "little").hex()
    if algorithm in ("MURMUR3_32", "MURMUR3_128"):
        return _murmur3(algorithm, data)
    raise ValueError(f"unknown checksum algorithm {algorithm!r}")


def _murmur3(algorithm: str, data: bytes) -> str:
    """`mmh3` is there for tests only: the demo assigns no package."""
    import mmh3

    if algorithm == "MURMUR3_32":
        return mmh3.mmh3_32_uintdigest(data).to_bytes(4, "little").hex()
    return mmh3.mmh3_x64_128_digest(data).hex()


@dataclass(slots=True)
class Downloads:
    """The chunk requests of one session; a package stays pinned to its request id to the end."""

    _sizes: dict[tuple[str, int], int] = field(default_factory=dict)
    _pinned: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def is_started(self, kind: str, request_id: int) -> bool:
        return (kind, request_id) in self._pinned

    def chunk(self, kind: str, request_id: int, number: int, size: bytes, package: Package | None) -> bytes:
        """Return the bytes, none beyond the end. `size` is the payload: ASCII digits or nothing.

        Raises:
            PackageError: nothing assigned, a package with a URL, too large a chunk, no number.
        """
        request = (kind, request_id)
        chunk_bytes = self._chunk_size(request, size)
        if request not in self._pinned:
            self._pinned[request] = _stored(package)
        data = self._pinned[request]
        if chunk_bytes <= 0:
            return data if number == 0 else b""
        return data[number * chunk_bytes : (number + 1) * chunk_bytes]

    def _chunk_size(self, request: tuple[str, int], size: bytes) -> int:
        """Remembered per request id; 0 stands for the whole package in one piece."""
        if size:
            try:
                self._sizes[request] = int(size)
            except ValueError as error:
                raise PackageError("") from error
        chunk_bytes = self._sizes.get(request, 0)
        if chunk_bytes > MAX_CHUNK_BYTES:
            raise PackageError("PAYLOAD_TOO_LARGE")
        return chunk_bytes


def _stored(package: Package | None) -> bytes:
    if package is None:
        raise PackageError("NOT_FOUND")
    if package.data is None:
        raise PackageError("FAILURE")
    return package.data
