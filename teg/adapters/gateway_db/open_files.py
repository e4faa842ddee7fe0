"""The files behind the open database, told from what stands at their names: a path is not an identity.

SQLite keeps writing into a file that was removed, renamed or replaced, and trusts one that somebody else wrote over.
So the three files are held open beside SQLite, and looked at after every commit and before anything is deleted
elsewhere on the strength of it. Only `stat` and a few bytes are needed: tens of microseconds.

They are closed after SQLite's own connections: closing any descriptor of a file drops this process's locks on it.
"""

import os
import stat
import struct
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
        """Called with the database open in WAL mode, so that all three exist."""
        self.path = path
        self._descriptors: dict[str, int] = {}
        try:
            for suffix in SUFFIXES:
                self._descriptors[suffix] = os.open(self._name(suffix), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise
        self._written = self._main_state()
        self._seen: _Index | None = None

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
        """Does the name still lead to the file that we have open?"""
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
