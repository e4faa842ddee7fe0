"""A place of its own for a database that lies among our private files: its reader sees that file and nothing else."""

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


def stage(source: Path, place: Path) -> Path | None:
    """The same file under `place`, a directory that only we write; None while there is no such file.

    Links and not copies, which costs no space: an archive may be bigger than what is free. What is checked lies where
    nobody can exchange it any more. A log or journal left behind comes along, the log's index is made anew.

    Raises:
        OSError: also when it is no ordinary file.
    """
    unstage(place)
    place.mkdir(mode=0o700)
    for suffix in ("-wal", "-journal", ""):
        with suppress(FileNotFoundError):
            _take(Path(f"{source}{suffix}"), place / f"{source.name}{suffix}")
    staged = place / source.name
    if staged.exists():
        return staged
    unstage(place)
    return None


def unstage(place: Path) -> None:
    """The other name of the files goes; the files stay where they are."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)


def _take(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        _copy(source, target)
    if not stat.S_ISREG(target.lstat().st_mode):
        target.unlink()
        raise OSError(errno.EINVAL, f"{source} is not an ordinary file")


def _copy(source: Path, target: Path) -> None:
    with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as old:
        if not stat.S_ISREG(os.fstat(old.fileno()).st_mode):
            raise OSError(errno.EINVAL, f"{source} is not an ordinary file")
        with target.open("xb") as new:
            shutil.copyfileobj(old, new)
