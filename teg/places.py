"""Where things lie: which directories are the gateway's alone, which the controller sees, and that the two are apart.

Reads the file system, changes nothing. Two paths are compared by their spelling without links, by what they are (device
and inode of each component), and by their place in their file system: neither a link nor a bind mount hides a meeting.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Beside a directory that the controller sees as a whole: where the gateway's own files go from there.
PRIVATE_ENDING = "-private"
#: Lies in the private directory since its files were brought there; the first line says from where.
RECORD = "brought-from.txt"
INBOX = "communication_queue.db"
TOKEN = "tb_access_token"  # noqa: S105 - the name of a file
QUEUE_NAME = "queue_name"

#: The gateway's own, in its data directory and of its program; none of it may be reached by the controller.
PRIVATE_FILES = ("gateway.db", "gateway.lock", TOKEN, "last_launched_controller_version.txt", QUEUE_NAME)
PRIVATE_DIRECTORIES = ("huey_data", "quarantine", "ota", "controller_process")
PROGRAM_PARTS = ("gateway.py", "teg", "tasks", "producers", "pyproject.toml", ".env", ".git")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """`shared_before`: the directory that held private files and is the controller's now; None in the usual layout."""

    data: Path
    controller_data: Path
    controller_logs: Path
    shared_before: Path | None = None

    def belongs(self, path: Path) -> Path:
        """Where a private file has to be: out of what the controller sees as a whole, else where it was put."""
        if self.shared_before is None or not within(path, self.shared_before):
            return path
        return self.data / path.name


def arrange(data: Path, controller_data: Path | None, controller_logs: Path | None, state: Path | None) -> Places:
    """The three directories for what the settings say (None: nothing said).

    The reference gateway had one directory for both, with the logs inside. It stays the controller's, and the private
    files belong beside it, or into `state` (systemd's directory for this service). A controller without a setting of
    its own is given `controller` in the private directory, unless an inbox shows that it has the whole of it.
    """
    beside = private_beside(data)
    if state and not was_brought(beside, data) and not within(state, data):
        beside = state
    one_for_both = os.path.lexists(data / INBOX) or was_brought(beside, data)
    shared = controller_data or (data if one_for_both else data / "controller")
    before = None
    if within(data, shared) and within(shared, data):
        before, data = shared, beside
    if controller_logs is None or within(controller_logs, shared):
        controller_logs = data / "controller-logs"
    return Places(data=data, controller_data=shared, controller_logs=controller_logs, shared_before=before)


def private_beside(directory: Path) -> Path:
    """Found again at every start from the setting alone; the container cannot reach the directory above its own."""
    real = Path(os.path.realpath(directory))
    return real.parent / (real.name + PRIVATE_ENDING)


def former_files(
    where: Places, token: Path, named: Iterable[Path], directories: Iterable[Path]
) -> Iterator[tuple[Path, Path]]:
    """Where a private file may still lie, and where it belongs, the likelier place first.

    `named` are files of the settings; the reference gateway looked for its token in `directories`. What the
    controller can write is never looked at, except for the directory that was both (once, see `private_files`).
    """
    if before := where.shared_before:
        names = [f"{name}{ending}" for name in PRIVATE_FILES for ending in _endings(name)]
        before = Path(os.path.realpath(before))
        yield from (
            (before / name, where.data / name) for name in names if name not in ("gateway.lock", TOKEN, QUEUE_NAME)
        )
        yield from ((_parent_without_links(path), where.belongs(path)) for path in named if within(path, before))
    if token == where.data / TOKEN:
        former = [Path(os.path.realpath(where.shared_before))] if where.shared_before else []
        former += [path for path in directories if not within(path, where.controller_data)]
        yield from ((directory / TOKEN, token) for directory in former)


def _parent_without_links(path: Path) -> Path:
    return Path(os.path.realpath(path.parent)) / path.name


def _endings(name: str) -> tuple[str, ...]:
    """What SQLite keeps beside a database belongs to it."""
    return ("", "-wal", "-shm", "-journal") if name.endswith(".db") else ("",)


def own_files(data: Path, program: Path, installed: bool) -> Iterator[tuple[str, Path]]:
    """What nobody but the gateway may write, by what it is called."""
    yield from (("the gateway's", data / name) for name in (*PRIVATE_FILES, *PRIVATE_DIRECTORIES))
    yield from (("the program", program / part) for part in (PROGRAM_PARTS if not installed else ("",)))
    if sys.prefix != sys.base_prefix:
        yield "the program", Path(sys.prefix)
    yield "Python", Path(os.__file__).parent


def was_brought(directory: Path, data: Path) -> bool:
    """Whether the private files of `data` are in `directory` for good; the controller has no say in it."""
    try:
        first = (directory / RECORD).read_text(encoding="utf-8", errors="surrogateescape").partition("\n")[0]
    except OSError:
        return False
    return first == os.path.realpath(data)


def overlaps(
    shared: Iterable[tuple[str, Path]], private: Iterable[tuple[str, Path]]
) -> Iterator[tuple[str, Path, list[str]]]:
    """Each of `shared` that meets something of `private` (what it is called, and its path), with all that it meets."""
    look = _Looks().look
    ours = [(f"{what} {path}", look(path)) for what, path in private]
    for name, directory in shared:
        seen = look(directory)
        if met := [what for what, its in ours if _is_inside(its, seen) or _is_inside(seen, its)]:
            yield name, directory, met


def within(inner: Path, outer: Path) -> bool:
    """Whether `inner` is `outer` or lies in it, whatever links and mounts lead there; neither has to exist."""
    look = _Looks().look
    return _is_inside(look(inner), look(outer))


def is_lost_with_a_container(directory: Path) -> bool:
    """Whether what is written there goes when the container goes that the gateway itself runs in."""
    found = _mount_of(Path(os.path.realpath(directory)), _mounts())
    return found is not None and found.kind in ("overlay", "tmpfs", "ramfs")


# --- one look at a path ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mount:
    """A line of /proc/self/mountinfo: `root` of the file system `device` is seen at `point`."""

    device: str
    root: Path
    point: Path
    kind: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """A path as it is spelt and without links, what every directory on either way is, and where the file system has it.

    Both ways count: who can write a directory on the way through a link can turn the link elsewhere.
    """

    spelt: Path
    real: Path
    identities: tuple[tuple[int, int] | None, ...]  #: its own first
    device: str
    in_file_system: Path | None


class _Looks:
    """Looks at several paths at one moment: what they have in common is looked at once."""

    def __init__(self) -> None:
        self._mounts = _mounts()
        self._identities: dict[Path, tuple[int, int] | None] = {}

    def look(self, path: Path) -> _Seen:
        spelt, real = path.absolute(), Path(os.path.realpath(path))
        on_the_way = dict.fromkeys((real, *real.parents, spelt, *spelt.parents))
        identities = tuple(map(self._identity, on_the_way))
        mount = _mount_of(real, self._mounts)
        if mount is None:
            return _Seen(spelt, real, identities, "", None)
        return _Seen(spelt, real, identities, mount.device, mount.root / real.relative_to(mount.point))

    def _identity(self, path: Path) -> tuple[int, int] | None:
        if path not in self._identities:
            self._identities[path] = _identity(path)
        return self._identities[path]


def _is_inside(inner: _Seen, outer: _Seen) -> bool:
    if any(way.is_relative_to(its) for way in (inner.spelt, inner.real) for its in (outer.spelt, outer.real)):
        return True
    if outer.identities[0] is not None and outer.identities[0] in inner.identities:
        return True
    if inner.in_file_system is None or outer.in_file_system is None or inner.device != outer.device:
        return False
    return inner.in_file_system.is_relative_to(outer.in_file_system)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _mount_of(real: Path, mounts: Iterable[_Mount]) -> _Mount | None:
    """The mount that `real` lies in: the deepest, and of two on one point the later one."""
    found = None
    for mount in mounts:
        if real.is_relative_to(mount.point) and (found is None or mount.point.is_relative_to(found.point)):
            found = mount
    return found


def _mounts() -> list[_Mount]:
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    return [mount for line in text.splitlines() if (mount := _parsed(line.split(" "))) is not None]


def _parsed(fields: list[str]) -> _Mount | None:
    if len(fields) < 10 or "-" not in fields[6:]:
        return None
    return _Mount(fields[2], _unescaped(fields[3]), _unescaped(fields[4]), fields[fields.index("-", 6) + 1])


def _unescaped(text: str) -> Path:
    return Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text))
