"""The controller's two directories on the host: made, and owned so that the controller can use them, by no link."""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from teg.domain.errors import Unavailable
from teg.domain.supervision.runtime import MountRefused

logger = logging.getLogger("gateway.docker")

#: Group access is for gateways that do not run as root: the container gets the group, and new files have it, too.
MODE = 0o2770
INBOX = "communication_queue.db"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_directory(path: Path, user: str, inbox: bool = False) -> None:
    """Make `path` if it is missing; Docker would make it root's. If `user` (`uid` or `uid:gid`) is set it becomes its.

    With `inbox` it is the one that holds the inbox.

    Raises:
        MountRefused: something else has the name.
        Unavailable: it cannot be made now.
    """
    try:
        made = _make(path)
        with _opened(path) as directory:
            if made:
                os.fchmod(directory, MODE)
            if user:
                _give(directory, path, *_numbers(user))
            if inbox and os.geteuid() != 0:
                _share_inbox(directory)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EEXIST):
            raise MountRefused(f"{path} is not a directory: the controller's belong there") from error
        raise Unavailable(f"the controller's directory {path} cannot be made: {error}") from error


def _make(path: Path) -> bool:
    if path.is_dir():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o770)
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The directory itself, not what a link there leads to; `mount_sources` looks at the way there."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _numbers(user: str) -> tuple[int, int]:
    uid, _, gid = user.partition(":")
    return int(uid), int(gid or uid)


def _give(directory: int, path: Path, uid: int, gid: int) -> None:
    """The directory and what lies directly in it: the inbox, the remote files, as far as they are ordinary files."""
    found = os.fstat(directory)
    if (found.st_uid, found.st_gid) == (uid, gid):
        return
    if os.geteuid() != 0:
        logger.warning("%s does not belong to %d:%d, the controller's user, and cannot be given to it", path, uid, gid)
        return
    for name in os.listdir(directory):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    os.fchown(directory, uid, gid)  # last: after a crash in between it is done again
    os.fchmod(directory, MODE)


def _share_inbox(directory: int) -> None:
    """Root in the container makes files that only it may write; SQLite gives its others the mode of this one."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileExistsError):
        descriptor = os.open(INBOX, flags, 0o660, dir_fd=directory)
        os.fchmod(descriptor, 0o660)
        os.close(descriptor)
