"""A controller that exchanges the names in its directory, between every look at them and every use of them."""

import ctypes
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.hostile_inboxes import NAME

SUFFIXES = ("", "-journal", "-wal", "-shm")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_libc = ctypes.CDLL(None, use_errno=True)
#: What is put in place of each file: the name it gets, and the file outside that it is to lead to.
BAD: Mapping[str, Callable[[Path, Path], None]] = {
    "link": lambda name, wire: name.symlink_to(wire),
    "pipe": lambda name, _: os.mkfifo(name),
    "hard-link": lambda name, wire: os.link(wire, name),
    "device": lambda name, _: os.mknod(name, 0o20666, os.makedev(1, 5)),
}


@contextmanager
def exchanging(kind: str, place: Path, wires: Path) -> Iterator[None]:
    """By turns as fast as this machine can, and lurking: good most of the time, so that the file is read and written
    to, and bad for moments of every length.
    """
    over = threading.Event()
    attack = threading.Thread(target=_attack, args=(kind, place, wires, over))
    attack.start()
    try:
        yield
    finally:
        over.set()
        attack.join()


def _attack(kind: str, place: Path, wires: Path, over: threading.Event) -> None:
    chance = random.Random(7)
    while not over.is_set():
        for _ in range(20):
            for suffix in SUFFIXES:
                _moment(kind, place / (NAME + suffix), wires / f"other.db{suffix}", 0)
        for _ in range(100):
            time.sleep(chance.uniform(0, 0.005))
            suffix = chance.choice((*SUFFIXES, "-journal", "-journal"))  # opened at each write, the others once
            _moment(kind, place / (NAME + suffix), wires / f"other.db{suffix}", chance.choice((0, 0.0001, 0.001)))


def _moment(kind: str, name: Path, wire: Path, seconds: float) -> None:
    """The bad thing under the name for so long, then again what was there before, or nothing."""
    aside = name.with_name("aside")
    BAD[kind](aside, wire)
    was_there = _exchange(aside, name)
    if not was_there:
        aside.rename(name)
    time.sleep(seconds) if seconds else None
    if was_there and not _exchange(aside, name):
        aside.rename(name)  # SQLite removed the bad one
    for left in (aside, *(() if was_there else (name,))):
        with suppress(FileNotFoundError):
            left.unlink()


def _exchange(one: Path, two: Path) -> bool:
    """In one step (renameat2(2)); False if one of them is not there."""
    return bool(_libc.renameat2(_AT_FDCWD, bytes(one), _AT_FDCWD, bytes(two), _RENAME_EXCHANGE) == 0)


def unprotected_hard_links(start: str, place: Path) -> str:
    """The reader's start as with fs.protected_hardlinks=0; all other programs of this machine go on with theirs."""
    (said := place / "protected_hardlinks").write_text("0\n")
    main = "from teg.adapters.inbox.child import main"
    setting = f"import teg.adapters.inbox.rights as r, pathlib; r.PROTECTED_HARD_LINKS = pathlib.Path({str(said)!r})"
    return start.replace(main, f"{setting}; {main}")
