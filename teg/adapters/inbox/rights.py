"""Whose rights to files the reader process has: never more than each account that can make names in the directory.

SQLite opens the files beside a database by name, and at a moment of its own: no look before it can hold. So what lies
under a name is harmless by whose rights it is opened with: a file that the reader could write although those who can
put it there could not, must not exist.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

#: "1": who makes a second name of a file owns it, or may read and write it (proc_sys_fs(5)). Debian's default.
PROTECTED_HARD_LINKS = Path("/proc/sys/fs/protected_hardlinks")
#: No distribution gives it to anybody (systemd: "65520…65533 unused"): nobody's processes, and nobody's files.
NOBODY = 65533
_GROUP_WRITES, _OTHERS_WRITE = 0o020, 0o002


@dataclass(frozen=True)
class Rights:
    """`override`: past the modes of files (CAP_DAC_OVERRIDE). `refusal`: why the inbox must not be opened, if so."""

    user: int
    group: int
    override: bool = False
    refusal: str = ""


def rights_of_root(directory: os.stat_result, file: os.stat_result | None) -> Rights:
    """For a reader that can be anybody: the owner of the directory, wherever that is enough."""
    owner = directory.st_uid
    group = directory.st_gid if directory.st_mode & _GROUP_WRITES else NOBODY
    least = Rights(owner, group)
    if file is None or file.st_uid == owner:
        alone = _owner_alone_makes_names(directory)
        return least if alone or _harmless(directory, (0,), (0,)) else _refused(least, directory)
    if _harmless(directory, (0,), (0,)):
        return Rights(file.st_uid, file.st_gid, override=True)
    return _refused(least, directory)


def rights_of_user(directory: os.stat_result, file: os.stat_result | None, user: int, can_override: bool) -> Rights:
    """For a reader that has to stay who it is, perhaps with the one capability that a service may have been given."""
    others_file = file is not None and file.st_uid != user
    least = Rights(user, os.getegid())
    if _harmless(directory, (0, user), (0, os.getegid())):
        return Rights(user, os.getegid(), override=others_file and can_override)
    return _refused(least, directory)


def _owner_alone_makes_names(directory: os.stat_result) -> bool:
    """A group of the account's own number is taken for its private one, as Debian makes it and TEG_CONTROLLER_USER."""
    others = directory.st_mode & _OTHERS_WRITE
    group = directory.st_mode & _GROUP_WRITES and directory.st_gid != directory.st_uid
    return not others and not group


def _harmless(directory: os.stat_result, users: Collection[int], groups: Collection[int]) -> bool:
    """Only these can make names there; or the kernel sees to it that a name gives nobody a right that he had not."""
    ours = (
        directory.st_uid in users
        and not directory.st_mode & _OTHERS_WRITE
        and (not directory.st_mode & _GROUP_WRITES or directory.st_gid in groups)
    )
    return ours or hard_links_are_protected()


def hard_links_are_protected() -> bool:
    try:
        return PROTECTED_HARD_LINKS.read_text().strip() == "1"
    except OSError:
        return False


def _refused(rights: Rights, directory: os.stat_result) -> Rights:
    mode = f"{directory.st_mode & 0o7777:04o}"
    reason = (
        f"the inbox's directory (user {directory.st_uid}, group {directory.st_gid}, mode {mode}) can be changed by"
        " accounts whose rights the reader would exceed, and this kernel lets everybody make second names of any file;"
        " set fs.protected_hardlinks=1 (sysctl), or give the directory and its files to one account (chown, chmod go-w)"
    )
    return Rights(rights.user, rights.group, refusal=reason)
