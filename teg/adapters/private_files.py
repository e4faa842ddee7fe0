"""The gateway's own files: closed to everybody else, and brought to where the controller cannot see them.

Bringing them is for the reference's layout, one directory for both. It happens once, before anything of the gateway is
open: what the controller puts there later is never taken for ours. A crash at any point leaves each file in one of the
two places, complete, and the next start goes on.
"""

import errno
import filecmp
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from teg.domain.errors import Unavailable
from teg.places import RECORD, within

logger = logging.getLogger("gateway.files")

_DONE = "done\n"
_UNFINISHED = ".bringing"


def make_private(directory: Path) -> None:
    """Create `directory`, or take everybody else's rights on it and its files away, and say so.

    Raises:
        Unavailable: it cannot be made now.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = [name for name in (directory, *_files(directory)) if _close_to_others(name)]
    except OSError as error:
        raise Unavailable(f"{directory} cannot be made private: {error}") from error
    if opened:
        logger.warning("readable by others until now, not any more: %s", ", ".join(map(str, opened)))


def _files(directory: Path) -> list[Path]:
    """Its ordinary files; what lies in its directories is behind the doors of this one."""
    return [Path(entry.path) for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)]


def _close_to_others(path: Path) -> bool:
    found = path.lstat()
    if not found.st_mode & 0o077 or stat.S_ISLNK(found.st_mode):
        return False
    try:
        path.chmod(stat.S_IMODE(found.st_mode) & 0o700)
    except PermissionError:
        logger.warning("%s is open to others and belongs to somebody else: it cannot be closed", path)
        return False
    return True


def is_open_to_others(path: Path) -> bool:
    """Whether every account may read it; a missing file is not."""
    try:
        return bool(path.stat().st_mode & 0o004)
    except OSError:
        return False


def bring(files: Iterable[tuple[Path, Path]], shared_before: Path | None, directory: Path) -> None:
    """Move each file (from, to) that is there to `directory`, which is private, and say so.

    Out of `shared_before` this is done once. Elsewhere a file is moved when its place is free. Nothing is overwritten:
    a link, a device or a file that is in both places stays where it is, and a warning says so.

    Raises:
        Unavailable: the disk does not let us now; to be called again.
    """
    try:
        _bring(list(files), shared_before, directory)
    except OSError as error:
        raise Unavailable(f"the private files cannot be brought to {directory}: {error}") from error


def _bring(files: Sequence[tuple[Path, Path]], shared_before: Path | None, directory: Path) -> None:
    record, origin = directory / RECORD, f"{os.path.realpath(shared_before or '')}\n"
    once = shared_before is not None and not _is_done(record)
    if once:
        _write(record, origin)
    for source, target in files:
        if once or shared_before is None or not within(source, shared_before):
            _move(source, target)
    if once:
        _write(record, f"{origin}{_DONE}")


def _is_done(record: Path) -> bool:
    with suppress(FileNotFoundError):
        return record.read_text(encoding="utf-8", errors="replace").endswith(_DONE)
    return False


def _move(source: Path, target: Path) -> None:
    """Renamed, or copied where that cannot be or the file has another name."""
    try:
        found = source.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(found.st_mode) or os.path.realpath(source.parent) != str(source.parent):
        logger.warning("%s is a link or no ordinary file and stays; the gateway does not use it", source)
    elif os.path.lexists(target):
        _drop_copy(source, target)
    else:
        _rename(source, target) if found.st_nlink == 1 else _copy(source, target)
        logger.warning("%s was moved: it is %s now", source, target)


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _copy(source, target)
    _sync(target.parent)
    _sync(source.parent)
    status = target.lstat()
    if not stat.S_ISREG(status.st_mode):  # swapped between the two looks: a link says nothing about its target
        logger.warning("%s became something else while it was moved; it is not used", source)
        target.unlink()
        return None
    target.chmod(0o600)
    if status.st_nlink > 1:
        _copy(target, target)
    return None


def _copy(source: Path, target: Path) -> None:
    """A file that has a second name could be written through that."""
    unfinished = target.with_name(target.name + _UNFINISHED)
    unfinished.unlink(missing_ok=True)
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    writing = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(reading, "rb") as old, open(writing, "wb") as new:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            raise OSError(errno.EBUSY, f"{source} became something else while it was read")
        shutil.copyfileobj(old, new)
        new.flush()
        os.fsync(new.fileno())
    unfinished.rename(target)
    _sync(target.parent)
    if source != target:
        source.unlink()
        _sync(source.parent)


def _drop_copy(source: Path, target: Path) -> None:
    """A crash came between a copy and the end of its source; anything else is not ours to decide."""
    if filecmp.cmp(source, target, shallow=False):
        source.unlink()
        _sync(source.parent)
    else:
        logger.warning("%s stays: the gateway uses %s, which is another one", source, target)


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + _UNFINISHED)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
