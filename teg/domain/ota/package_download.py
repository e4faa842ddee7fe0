"""A software package in chunks from ThingsBoard: asked for one by one, to disk, resumable, verified as a whole.

Source: ThingsBoard MQTT device API, "Software API" (`v2/sw/request/{id}/chunk/{n}`). The server answers a chunk beyond
the end, and every chunk of a package its cache has lost, with an empty payload: only size and checksum are proof.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import Assignment
from teg.domain.ota.checksums import checksum
from teg.domain.ports import Session
from teg.domain.server import SOFTWARE_CHUNK_FILTER, SOFTWARE_CHUNK_REQUEST, SOFTWARE_CHUNK_RESPONSE

#: Half of what the server allows; a constant, because a resumed download goes on at a multiple of it.
CHUNK_BYTES = 32_768
#: Shorter than the time the gateway has for a graceful stop.
CHUNK_TIMEOUT_S = 15.0
#: Left free for the archive while a package is downloaded and unpacked.
RESERVE_BYTES = 64 << 20


class CalledOff(Refused):
    """The version is not wanted any more."""


class PackageFile(Protocol):
    """A package on its way to the disk; every call raises Unavailable when the disk does not play along."""

    @property
    def path(self) -> Path: ...

    def held_bytes(self) -> int: ...

    def free_bytes(self) -> int:
        """Free space of the partition the file is on."""
        ...

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes."""
        ...

    def append(self, data: bytes) -> None: ...

    def sync(self) -> None: ...

    def pieces(self) -> Iterator[bytes]: ...


class PackageStore(Protocol):
    """Holds at most one package."""

    def open(self, name: str) -> PackageFile:
        """The file of that name, empty if it is new; files of other names are removed."""
        ...

    def clear(self) -> None:
        """Remove whatever is there."""
        ...


def require_space(assignment: Assignment, held_bytes: int, free_bytes: int) -> None:
    """The package, as much again for unpacking it, and a reserve."""
    needed = 2 * assignment.size - held_bytes + RESERVE_BYTES
    if free_bytes < needed:
        raise Unavailable(
            f"the package of {assignment.size >> 20} MiB needs {needed >> 20} MiB of disk, {free_bytes >> 20} MiB are "
            "free: make room or assign a smaller one"
        )


def download(
    session: Session, file: PackageFile, assignment: Assignment, request_id: int, cancelled: Callable[[], bool]
) -> None:
    """Bring the file to the assigned size, from where it ends now.

    `request_id` has to be new for every call: the server pins the package it began to send.

    Raises:
        CalledOff: `cancelled` said so.
        Refused: the server has more or less than the assigned size.
        Unavailable: no answer, no session, no space; what was received stays.
    """
    held = file.held_bytes()
    held -= held % CHUNK_BYTES if held < assignment.size else held - assignment.size
    require_space(assignment, held, file.free_bytes())
    file.cut(held)
    session.subscribe(SOFTWARE_CHUNK_FILTER)
    while held < assignment.size:
        if cancelled():
            raise CalledOff(f"version {assignment.version} is not wanted any more")
        chunk = _request_chunk(session, request_id, held // CHUNK_BYTES)
        check_chunk(chunk, held, assignment.size)
        file.append(chunk)
        held += len(chunk)
    if assignment.size % CHUNK_BYTES == 0:
        _check_end(_request_chunk(session, request_id, assignment.size // CHUNK_BYTES), assignment.size)
    file.sync()


def _request_chunk(session: Session, request_id: int, number: int) -> bytes:
    return session.request(
        SOFTWARE_CHUNK_REQUEST.format(id=request_id, chunk=number),
        b"%d" % CHUNK_BYTES,
        SOFTWARE_CHUNK_RESPONSE.format(id=request_id, chunk=number),
        CHUNK_TIMEOUT_S,
    )


def check_chunk(chunk: bytes, held: int, size: int) -> None:
    """Whether `chunk` is what comes after `held` of `size` bytes.

    Raises:
        Unavailable: it is empty, which also means that the server's cache lost the package.
        Refused: too short or too long.
    """
    expected = min(CHUNK_BYTES, size - held)
    if not chunk:
        raise Unavailable(f"the server sent {held} of {size} bytes of the package and then nothing")
    if len(chunk) < expected:
        raise Refused(f"the package is shorter than sw_size: {held + len(chunk)} of {size} bytes. Upload it again")
    if len(chunk) > expected:
        raise Refused(f"the package is longer than sw_size, {size} bytes. Upload it again")


def _check_end(chunk: bytes, size: int) -> None:
    if chunk:
        raise Refused(f"the package is longer than sw_size, {size} bytes. Upload it again")


def verify(file: PackageFile, assignment: Assignment) -> None:
    """Raises Refused unless size and checksum are the assigned ones."""
    held = file.held_bytes()
    if held != assignment.size:
        raise Refused(f"the package has {held} bytes, sw_size says {assignment.size}")
    found = checksum(assignment.algorithm, file.pieces())
    if found != assignment.checksum:
        raise Refused(
            f"the package is corrupt: its {assignment.algorithm} is {found}, sw_checksum says {assignment.checksum}. "
            "Upload it again"
        )
