"""Disks of a test's own: one whose power fails, one that is soon full. Both need root."""

import filecmp
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType


class LoopDisk:
    """An ext4 file system in a file, mounted at `place`.

    `cut` keeps what had reached the disk at that moment; what was only in memory is not in it, and nothing gets there
    by the clock alone (`commit=600`). `power_on` mounts that,
    after everything on the old one was closed.
    """

    def __init__(self, image: Path, place: Path, size_mb: int = 48) -> None:
        self._image = image
        self._after = image.with_name(image.name + ".after")
        self._place = place
        self._size_mb = size_mb

    def __enter__(self) -> "LoopDisk":
        with self._image.open("wb") as file:
            file.truncate(self._size_mb << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard", self._image], check=True)
        self._place.mkdir(parents=True, exist_ok=True)
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "-l", self._place], check=True)

    def cut(self) -> None:
        """While nobody writes. The file system's own journal may: then the copy is made anew."""
        while True:
            shutil.copyfile(self._image, self._after)
            if filecmp.cmp(self._image, self._after, shallow=False):
                return

    def power_on(self) -> None:
        subprocess.run(["umount", self._place], check=True)
        self._after.replace(self._image)
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop,commit=600", self._image, self._place], check=True)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(path: Path) -> None:
    """To the last byte."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with suppress(OSError):
        while True:
            os.write(descriptor, b"x" * 65_536)
    os.close(descriptor)
