"""A file of nothing that is let go when the disk is full: room for the work that makes room."""

import os
import shutil
from pathlib import Path

from teg.domain.errors import Unavailable

SIZE_BYTES = 16 << 20
#: On a small partition, this share of it.
SHARE = 50


class Ballast:
    """`telemetry.retention.Disk` for the partition that `path` lies on."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def size_bytes(self) -> int:
        return min(SIZE_BYTES, self._usage().total // SHARE)

    def free_bytes(self) -> int:
        return self._usage().free

    @property
    def held(self) -> bool:
        return self._path.exists()

    def let_go(self) -> None:
        self._path.unlink(missing_ok=True)

    def take(self) -> None:
        """Real blocks, not a hole: raises Unavailable when they are not there."""
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.size_bytes)
        except OSError as error:
            self.let_go()
            raise Unavailable(f"{self._path}: {error.strerror}") from error

    def _usage(self) -> "shutil._ntuple_diskusage":
        try:
            return shutil.disk_usage(self._path.parent)
        except OSError as error:
            raise Unavailable(f"{self._path.parent}: {error.strerror}") from error
