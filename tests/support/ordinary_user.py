"""A gateway process that is an ordinary user's: no root, no group, no capability."""

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.running import PROJECT, remove_tree

UID = 54321

# A directory that is closed itself (`mktemp -d` makes such) is shown by what it holds.
SHOW = """show() {
    mkdir -p "$2"
    if [ $(( 0$(stat -c %a "$1") & 5 )) = 5 ]; then mount --bind "$1" "$2"; return; fi
    mountpoint -q "$2" || mount -t tmpfs -o mode=755 tmpfs "$2"
    for entry in $(ls -A "$1"); do
        if [ -d "$1/$entry" ]; then mkdir "$2/$entry"; else touch "$2/$entry"; fi
        mount --bind "$1/$entry" "$2/$entry"
    done
}"""


def becoming_ordinary() -> list[str]:
    """What to put before a command. The program is shown to the user where it lies, even below a closed home.

    In a mount namespace of its own: each closed directory on the way is covered by one that holds only the program's.
    """
    wanted = sorted({str(PROJECT), sys.prefix, sys.base_prefix})
    closed = {str(top) for path in wanted if (top := _closed(Path(path))) is not None}
    script = ["set -e"]
    for number, path in enumerate(wanted):
        script += [f"mkdir -p $HOLD/{number}", f"mount --bind {shlex.quote(path)} $HOLD/{number}"]
    script += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(path)}" for path in sorted(closed)]
    script.append(SHOW)
    script += [f"show $HOLD/{number} {shlex.quote(path)}" for number, path in enumerate(wanted)]
    identity = f"--reuid={UID} --regid={UID} --clear-groups --inh-caps=-all --bounding-set=-all"
    script.append(f'cd {shlex.quote(str(PROJECT))}; exec setpriv {identity} -- "$@"')
    hold = 'HOLD=$(mktemp -d); mount -t tmpfs -o mode=755 tmpfs "$HOLD"'
    return ["unshare", "--mount", "--propagation", "private", "bash", "-c", "\n".join([hold, *script]), "ordinary"]


def _closed(path: Path) -> Path | None:
    """The uppermost directory on the way that others may not pass."""
    return next((place for place in reversed((path, *path.parents)) if not place.stat().st_mode & 0o001), None)


@contextmanager
def directory_of_the_user() -> Iterator[Path]:
    """pytest's own lie below a closed one."""
    path = Path(tempfile.mkdtemp(prefix="teg-user-"))
    give(path)
    try:
        yield path
    finally:
        remove_tree(path)


def give(path: Path) -> None:
    """`path` and what is in it belong to the user; links are not followed."""
    os.chown(path, UID, UID, follow_symlinks=False)
    for where, directories, files in os.walk(path):
        for name in (*directories, *files):
            os.chown(Path(where) / name, UID, UID, follow_symlinks=False)
