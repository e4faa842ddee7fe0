"""Opens a directory that a hostile neighbour writes into, so that it is that directory and no other."""

import errno
import os
from pathlib import Path

Identity = tuple[int, int]


def canonical(directory: Path) -> Path:
    """Links above the directory are the operator's, and followed once, here; the directory itself must not be one."""
    return directory.parent.absolute().resolve() / directory.name


def open_directory(directory: Path) -> int:
    """A descriptor that can only be used as a place; every component opened without following links. Raises OSError."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    place = os.open("/", flags)
    for part in directory.parts[1:]:
        try:
            inner = os.open(part, flags, dir_fd=place)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise NotADirectoryError(error.errno, f"'{part}' in {directory} is a link or no directory") from error
            raise
        finally:
            os.close(place)
        place = inner
    return place


def identity(directory: Path) -> Identity:
    """Raises OSError."""
    found = os.lstat(directory)
    return found.st_dev, found.st_ino


def names(directory: Path, file_name: str) -> tuple[object, object]:
    """What lies under the database's names: (which files these are, when they were written); looked at from outside."""
    found = [_lstat(directory / (file_name + suffix)) for suffix in ("", "-journal", "-wal", "-shm")]
    which = tuple(one and (one.st_dev, one.st_ino, one.st_mode, one.st_nlink) for one in found)
    return which, tuple(one and (one.st_mtime_ns, one.st_size) for one in found)


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None
