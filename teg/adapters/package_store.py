"""A downloaded software package on disk: one private directory that never holds more than one of them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teg.domain.errors import Unavailable

_PIECE_BYTES = 1 << 20


class PackagesOnDisk:
    """`ota.package_download.PackageStore` in `directory`, which is created (0700) when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, name: str) -> "PackageOnDisk":
        with _disk("cannot prepare the package directory"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / f"{name}.part"
            for other in self._directory.iterdir():
                if other != path:
                    _remove(other)
            return PackageOnDisk(path)

    def clear(self) -> None:
        with _disk("cannot remove a package"):
            if self._directory.exists():
                for path in self._directory.iterdir():
                    _remove(path)


class PackageOnDisk:
    """`ota.package_download.PackageFile`; written without following a symbolic link somebody may have put there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def held_bytes(self) -> int:
        with _disk("cannot read the package"):
            return self.path.stat().st_size if self.path.exists() else 0

    def free_bytes(self) -> int:
        with _disk("cannot tell the free space"):
            return shutil.disk_usage(self.path.parent).free

    def cut(self, size: int) -> None:
        with _disk("cannot write the package"), self._open(os.O_WRONLY) as descriptor:
            os.ftruncate(descriptor, size)

    def append(self, data: bytes) -> None:
        with _disk("cannot write the package"), self._open(os.O_WRONLY | os.O_APPEND) as descriptor:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

    def sync(self) -> None:
        with _disk("cannot write the package"), self._open(os.O_WRONLY) as descriptor:
            os.fsync(descriptor)

    def pieces(self) -> Iterator[bytes]:
        with _disk("cannot read the package"), self._open(os.O_RDONLY) as descriptor:
            while piece := os.read(descriptor, _PIECE_BYTES):
                yield piece

    @contextmanager
    def _open(self, flags: int) -> Iterator[int]:
        descriptor = os.open(self.path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{what}: {error}") from error
