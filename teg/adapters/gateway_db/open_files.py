"""The files behind the open database, told from what stands at their names: a path is not an identity.

SQLite keeps writing into a file that was removed, renamed or replaced, and trusts one that somebody else wrote over.
So the three files are held open beside SQLite, and looked at after every commit and before anything is deleted
elsewhere on the strength of it. Only `stat` and a few bytes are needed: tens of microseconds.

They are closed after SQLite's own connections: closing any descriptor of a file drops this process's locks on it.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from teg.domain.errors import Unavailable

SUFFIXES = ("", "-wal", "-shm")
_LOG_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24


class Disturbed(Unavailable):
    """Somebody else touched the files. `content` is what they hold: True, SQLite's open files are still whole."""

    def __init__(self, what: str, content: bool) -> None:
        super().__init__(what)
        self.content = content


@dataclass(frozen=True, slots=True)
class _Index:
    """What the shared memory says about the write-ahead log (WalIndexHdr, www.sqlite.org/walformat.html 2.1)."""

    page_bytes: int
    frames: int
    frame_checksum: bytes
    salts: bytes


class OpenFiles:
    """One set of -db, -wal and -shm, from its opening to its end."""

    def __init__(self, path: Path) -> None:
        """Called with the database open in WAL mode, so that all three exist.

        A name may have been taken away or given to another file since SQLite opened it: what SQLite does not have open
        is nobody's measure, and `verify` says so from the first time.
        """
        self.path = path
        self._descriptors: dict[str, int] = {}
        try:
            for suffix in SUFFIXES:
                self._open(suffix)
        except OSError:
            self.close()
            raise
        self._common = self._open_in_sqlite()
        self._written = self._main_state() if "" in self._common else None
        self._seen: _Index | None = None

    def _open(self, suffix: str) -> None:
        try:
            self._descriptors[suffix] = os.open(self._name(suffix), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise

    def _open_in_sqlite(self) -> set[str]:
        """Of our descriptors those that lead to what SQLite writes into: nothing else here opens these for writing."""
        written = set(_open_for_writing())
        found = {suffix: os.fstat(descriptor) for suffix, descriptor in self._descriptors.items()}
        return {suffix for suffix, state in found.items() if (state.st_dev, state.st_ino) in written}

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}

    def checkpointed(self) -> None:
        """We ourselves wrote into the main file just now; nobody else ever may."""
        self._written = self._main_state()

    def frames(self) -> int:
        """Pages in the write-ahead log."""
        return self._index().frames

    def verify(self) -> None:
        """
        Raises:
            Disturbed: a name leads elsewhere, or the content is not what SQLite wrote.
        """
        for suffix in SUFFIXES:
            if suffix not in self._common:
                raise Disturbed(f"{self._name(suffix)} was removed or replaced while it was opened", content=True)
        if self._main_state() != self._written:
            raise Disturbed(f"{self.path} was written or cut by another program", content=False)
        self._verify_log()
        for suffix in SUFFIXES:
            if not self.is_ours(suffix):
                raise Disturbed(f"{self._name(suffix)} was removed or replaced while in use", content=True)

    def whole(self) -> bool:
        try:
            self.verify()
        except (Disturbed, OSError):  # closed meanwhile: somebody else is mending it
            return False
        return True

    def is_ours(self, suffix: str) -> bool:
        """Does the name still lead to the file that SQLite has open?"""
        if suffix not in self._common:
            return False
        with suppress(OSError):
            found = os.lstat(self._name(suffix))
            return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.fstat(self._descriptors[suffix]))
        return False

    def _verify_log(self) -> None:
        """The last committed frame is where the index says, with the checksum that it has there; so is the one before
        the last commit: a log that was cut in between has grown again, with a hole in it."""
        index, before = self._index(), self._seen
        self._verify_frame(index)
        if before is not None and before.salts == index.salts and before.frames <= index.frames:
            self._verify_frame(before)
        self._seen = index

    def _verify_frame(self, index: _Index) -> None:
        if index.frames == 0:
            return
        log = self._descriptors["-wal"]
        place = _LOG_HEADER_BYTES + (index.frames - 1) * (_FRAME_HEADER_BYTES + index.page_bytes)
        salts, frame = os.pread(log, 8, 16), os.pread(log, _FRAME_HEADER_BYTES, place)
        whole = os.fstat(log).st_size >= place + _FRAME_HEADER_BYTES + index.page_bytes
        if not whole or salts != index.salts or frame[8:24] != index.salts + index.frame_checksum:
            raise Disturbed(f"{self._name('-wal')} was written or cut by another program", content=False)

    def _index(self) -> _Index:
        header = os.pread(self._descriptors["-shm"], 48, 0)
        if len(header) < 48:
            raise Disturbed(f"{self._name('-shm')} was written or cut by another program", content=False)
        page_bytes, frames = struct.unpack("=HI", header[14:20])
        checksum = struct.pack(">II", *struct.unpack("=II", header[24:32]))
        return _Index(page_bytes if page_bytes > 1 else 65_536, frames, checksum, header[32:40])

    def _main_state(self) -> tuple[int, int]:
        found = os.fstat(self._descriptors[""])
        return found.st_size, found.st_mtime_ns

    def _name(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def _open_for_writing() -> Iterator[tuple[int, int]]:
    """(device, inode) of each file that this process has open to read and write."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if fcntl.fcntl(int(entry.name), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
                found = os.fstat(int(entry.name))
                yield found.st_dev, found.st_ino
