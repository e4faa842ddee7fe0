"""What is mounted into the controller's container is what was looked at: no step on the way there is the controller's.

The engine resolves a source by its path, as root. So each source is walked from `/`, link by link, and refused if the
controller could write any directory on that way. What the engine is given is the path without links that came out:
nobody in the container can make it lead elsewhere between the look and the mount.
"""

import logging
import os
import posixpath
import stat
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from teg import places
from teg.domain.supervision.container_profile import Mount
from teg.domain.supervision.runtime import MountRefused

logger = logging.getLogger("gateway.docker")

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40
#: Their sources are ours and were without links when the gateway started.
OWN_TARGETS = ("/root/data", "/root/logs")
#: Where a mount would change the container itself.
_CLOSED_TARGETS = ("/", "/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Way:
    """How a path is reached: without links, what it is, and every directory that was passed."""

    real: str
    found: os.stat_result
    passed: tuple[tuple[str, os.stat_result], ...]


def checked(mounts: Sequence[Mount], private: Collection[tuple[str, Path]] = ()) -> list[Mount]:
    """`mounts` with their sources as the engine shall resolve them.

    Raises:
        MountRefused: the controller, or every account of this machine, could lead one of them elsewhere; or it is,
            holds or lies in one of `private` (what it is called, and its path).
    """
    ways = [walk(mount.source) for mount in mounts]
    real = [replace(mount, source=way.real) for mount, way in zip(mounts, ways, strict=True)]
    for mount, way in zip(mounts, ways, strict=True):
        if mount.target in OWN_TARGETS and way.real != mount.source:
            raise MountRefused(f"{mount.source} cannot be mounted: it became a link to {way.real}")
    for mount, way in zip(real, ways, strict=True):
        _refuse_open_way(mount, way)
        others = [(other, its) for other, its in zip(real, ways, strict=True) if its is not way]
        _refuse_inside_another(mount, way, others)
    for _, path, met in places.overlaps([("", Path(mount.source)) for mount in real], private):
        raise MountRefused(f"{path} cannot be mounted: it is, holds or lies in {', '.join(met)}")
    return real


def walk(path: str) -> Way:
    """Follow `path` step by step, each opened without following a link; raises MountRefused if it leads nowhere."""
    try:
        with ExitStack() as opened:
            return _walk(path, opened)
    except OSError as error:
        raise MountRefused(f"{path} cannot be mounted: {error.strerror or error}") from error


def _walk(path: str, opened: ExitStack) -> Way:
    steps, links = _steps(path), 0
    trail = [("/", _opened("/", None, opened))]
    passed: list[tuple[str, os.stat_result]] = []
    while steps:
        where, descriptor = trail[-1]
        passed.append((where, os.fstat(descriptor)))
        step = steps.pop(0)
        if step == "..":
            trail = trail[:-1] or trail
            continue
        following = _opened(step, descriptor, opened)
        if not stat.S_ISLNK(os.fstat(following).st_mode):
            trail.append((posixpath.join(where, step), following))
            continue
        links += 1
        target = os.readlink("", dir_fd=following)
        if links > _MAX_LINKS:
            raise MountRefused(f"{path} cannot be mounted: too many links")
        steps = _steps(target) + steps
        trail = trail[:1] if target.startswith("/") else trail
    real, descriptor = trail[-1]
    return Way(real, os.fstat(descriptor), tuple(passed))


def _steps(path: str) -> list[str]:
    return [step for step in path.split("/") if step not in ("", ".")]


def _opened(name: str, directory: int | None, opened: ExitStack) -> int:
    descriptor = os.open(name, _LOOK, dir_fd=directory)
    opened.callback(os.close, descriptor)
    return descriptor


def _refuse_open_way(mount: Mount, way: Way) -> None:
    for path, found in way.passed:
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise MountRefused(f"{mount.source} cannot be mounted: every account may change {path}: chmod o-w")
        if found.st_uid not in (0, os.geteuid()):
            logger.debug("%s leads through %s, which belongs to account %d", mount.source, path, found.st_uid)


def _refuse_inside_another(mount: Mount, way: Way, others: Sequence[tuple[Mount, Way]]) -> None:
    passed = {(found.st_dev, found.st_ino) for _, found in way.passed}
    target = posixpath.normpath(mount.target)
    if target in _CLOSED_TARGETS:
        raise MountRefused(f"{mount.source} cannot be mounted on {mount.target}")
    for other, its in others:
        if posixpath.normpath(other.target) == target:
            raise MountRefused(f"{mount.source} and {other.source} are both to be mounted on {target}")
        if other.read_only:
            continue
        through = (its.found.st_dev, its.found.st_ino) in passed
        if through or (_is_below(mount.source, other.source) and mount.source != other.source):
            raise MountRefused(
                f"{mount.source} cannot be mounted: it lies in {other.source}, which is the controller's"
            )
        if target.startswith(posixpath.normpath(other.target) + "/"):
            raise MountRefused(f"{mount.source} cannot be mounted on {target}: {other.target} is the controller's")


def _is_below(inner: str, outer: str) -> bool:
    return places.within(Path(inner), Path(outer)) and not places.within(Path(outer), Path(inner))
