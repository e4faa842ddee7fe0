"""Where files go that are not served any more: renamed into a folder of their own, never deleted, with the reason."""

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from teg.adapters.gateway_db.open_files import SUFFIXES

#: A note in the folder: its presence asks for a salvage; the reason is its content.
TO_SALVAGE = "to-salvage"
DONE = "salvaged"
#: The files are not needed: a sound file has all of their rows.
KEPT_ONLY = "kept-only"


def new_folder(path: Path) -> Path:
    """`quarantine/gateway.db-<UTC>-<n>` beside the database at `path`; sorts by age."""
    parent = path.parent / "quarantine"
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    number = 0
    while (folder := parent / f"{path.name}-{stamp}-{number:02d}").exists():
        number += 1
    folder.mkdir(mode=0o700, parents=True)
    return folder


def move_aside(path: Path, suffixes: Iterable[str] = SUFFIXES) -> Path | None:
    """Rename what stands at these names into a new folder; None when there is nothing."""
    names = [path.with_name(path.name + suffix) for suffix in suffixes]
    if not (there := [name for name in names if os.path.lexists(name)]):
        return None
    folder = new_folder(path)
    for name in there:
        move_into(folder, name)
    return folder


def move_into(folder: Path, name: Path) -> None:
    """Renaming between two names of one file does nothing (POSIX), and the log has two: see `keep_log`."""
    there = folder / name.name
    if there.exists() and not name.is_symlink() and there.samefile(name):
        name.unlink()
    else:
        name.rename(there)


def keep_log(path: Path, folder: Path) -> None:
    """A second name for the write-ahead log, before the database is renamed: no crash may part the two."""
    name = path.name + "-wal"
    with suppress(OSError):  # no log, or a file system without hard links
        (folder / name).hardlink_to(path.with_name(name))


def note(folder: Path, kind: str, reason: str) -> None:
    (folder / kind).write_text(reason)


def prune(path: Path, max_bytes: int) -> int:
    """Delete the oldest sets whose readable rows are in the database, until all take so little; returns how many."""
    folders = sorted((path.parent / "quarantine").glob(f"{path.name}-*"))
    sizes = {folder: sum(file.lstat().st_size for file in folder.rglob("*")) for folder in folders}
    gone = 0
    for folder in folders:
        if sum(sizes.values()) <= max_bytes:
            break
        if any((folder / kind).exists() for kind in (DONE, KEPT_ONLY)):
            shutil.rmtree(folder)
            del sizes[folder]
            gone += 1
    return gone


def folders_to_salvage(path: Path) -> list[Path]:
    """Oldest first."""
    return sorted(note.parent for note in (path.parent / "quarantine").glob(f"{path.name}-*/{TO_SALVAGE}"))


def salvaged(folder: Path) -> None:
    (folder / TO_SALVAGE).rename(folder / DONE)


def note_interrupted(path: Path) -> None:
    """A stop between the renaming and the note: the database is in its folder, and nobody asked for a salvage yet."""
    if path.exists():
        return
    folders = sorted((path.parent / "quarantine").glob(f"{path.name}-*/{path.name}"))
    if folders and not any((folders[-1].parent / kind).exists() for kind in (TO_SALVAGE, DONE, KEPT_ONLY)):
        log = path.with_name(path.name + "-wal")
        if log.exists():
            move_into(folders[-1].parent, log)
        note(folders[-1].parent, TO_SALVAGE, "a stop in the middle of a quarantine")


def orphan_log(path: Path) -> bool:
    """A write-ahead log without its database. SQLite would delete it at the next opening, unread."""
    log = path.with_name(path.name + "-wal")
    with suppress(FileNotFoundError):
        if path.stat().st_size > 0:
            return False
    return log.exists() and log.stat().st_size > 0
