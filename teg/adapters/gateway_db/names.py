"""What stands at the names of the database, and how another file takes them: at any crash point one is whole."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from teg.adapters.gateway_db import quarantine
from teg.adapters.gateway_db.open_files import SUFFIXES


class Names:
    """`path`, its -wal and -shm. `close` lets go of every connection and descriptor."""

    def __init__(self, path: Path, close: Callable[[], None]) -> None:
        self._path = path
        self._whole = path.with_name(path.name + ".whole")
        self._close = close

    def finish_interrupted(self) -> None:
        """What a stop in the middle of `take` or `set_aside` left: a whole copy wins."""
        if self._whole.exists():
            self.take()
        else:
            quarantine.note_interrupted(self._path)

    def save(self, source: sqlite3.Connection) -> bool:
        """SQLite copies what `source` has open, whatever its name is now. False: that is damaged.

        Raises:
            sqlite3.OperationalError: no room.
        """
        copy = self._path.with_name(self._path.name + ".rescue")
        with suppress(FileNotFoundError):
            copy.unlink()
        try:
            with closing(sqlite3.connect(copy)) as target:
                copy.chmod(0o600)
                source.backup(target)
                if target.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                    return False
        except sqlite3.DatabaseError as error:
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                return False
            raise
        copy.rename(self._whole)
        return True

    def take(self) -> Path | None:
        """The saved copy becomes the database; returns where the rest is kept, if there was any."""
        folder = self.set_aside()
        if folder is not None:
            quarantine.note(folder, quarantine.KEPT_ONLY, "all rows are in a sound file")
        self._whole.rename(self._path)
        sync_directory(self._path.parent)
        return folder

    def set_aside(self) -> Path | None:
        """All that stands at the names goes into a folder, ours or not; None when nothing did.

        The main file goes first: SQLite, when it closes a file that has moved, neither checkpoints (the log may hold
        garbage) nor deletes by name (the names may be another file's).
        """
        if not any(os.path.lexists(name) for name in self._all()):
            self._close()
            return None
        folder = quarantine.new_folder(self._path)
        quarantine.keep_log(self._path, folder)
        main, *others = self._all()
        if os.path.lexists(main):
            main.rename(folder / main.name)
        self._close()
        for name in others:
            if os.path.lexists(name):
                quarantine.move_into(folder, name)
        return folder

    def _all(self) -> list[Path]:
        return [self._path.with_name(self._path.name + suffix) for suffix in SUFFIXES]


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
