"""The port to whatever runs the controller: a Docker Engine, a plain process, or nothing.

Names: container `teg_controller`, images `teg-controller-<version>:latest`, as on today's devices. A container is
ours if it carries our label, or if it is the reference gateway's (that name, from an image of that name). The version
is read from the container's label and from `State`, never parsed out of a name. Loaded and pulled images get our name
but no label (a tag cannot carry one): no re-commit that would change a verified image's id. That id is recorded when
the image is obtained; from then on the id is what is started, and an image of our name with another id is not taken.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.container_profile import Rights

CONTAINER_NAME = "teg_controller"
IMAGE_PREFIX = "teg-controller-"

#: What Docker accepts as one component of an image name.
_IMAGE_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")

#: Images that are neither current nor previous stay this long (30 days) and up to this much disk, newest first.
OLD_IMAGE_MAX_AGE_MS = 30 * 86_400_000
OLD_IMAGES_MAX_BYTES = 1 << 30


class ImageMissing(Unavailable):
    """The image of the version is not on this device (never obtained, or removed by hand)."""


class NameTaken(Refused):
    """A container that is not ours has our name; it is left alone."""


class StartFailed(Refused):
    """The engine made the container but could not start it; the message is the engine's."""


class MountRefused(Refused):
    """A directory that the container should see cannot be given to it safely; nothing was stopped or started."""


class Cancelled(Refused):
    """A build or pull was broken off because the caller's `cancelled()` said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the runtime says about our controller at one moment.

    `run_id` differs between two runs, so an exit is counted once. `version` and `profile` are None for a container
    taken over from the reference gateway. A paused controller is running, too.
    """

    exists: bool = False
    running: bool = False
    paused: bool = False
    run_id: str | None = None
    version: str | None = None
    profile: str | None = None
    image: str | None = None
    started_ms: int | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    rights: Rights | None = None  #: of a container taken over from the reference gateway: what it has beyond ours

    def is_of(self, version: str) -> bool:
        """Whether it was made from `version`: by its label, or for the reference's container by its image's name."""
        return self.version == version if self.version is not None else self.image == image_name(version)

    def runs(self, version: str) -> bool:
        return self.running and self.is_of(version)


ABSENT = Observation()


@dataclass(frozen=True, slots=True)
class KeptImage:
    """One of our images: a reference or id to remove it by, and what the rule for old images looks at."""

    name: str
    created_ms: int
    size_bytes: int
    in_use: bool = False


class ControllerRuntime(Protocol):
    """Runs at most one controller.

    Every call has a deadline and raises `Unavailable` (engine down, slow, hanging, answering 5xx) or `Refused`.
    Nothing that is not ours is ever stopped, removed or re-tagged.
    """

    def profile(self) -> str:
        """Fingerprint of the settings a start would use; a running controller with another one is re-created."""
        ...

    def observe(self) -> Observation:
        """The controller now, cheaply; raises NameTaken when a foreign container has its name."""
        ...

    def memory_bytes(self) -> int | None:
        """Memory it uses now, None while it does not run or where that cannot be told."""
        ...

    def loosen(self, rights: Rights) -> None:
        """Start with `rights` beyond what the settings give, from now on; `profile` says so."""
        ...

    def prepare(self, version: str) -> None:
        """Before something is stopped for it: raises what would keep `start` from working, changes nothing.

        Raises:
            ImageMissing, MountRefused: see `start`.
        """
        ...

    def start(self, version: str) -> None:
        """Run the kept image of `version` in a new container, replacing ours whatever it runs; nothing if it runs so.

        Raises:
            ImageMissing: before anything was stopped.
            MountRefused: before anything was stopped; what the container should see cannot be given to it safely.
            NameTaken: a foreign container has the name.
            StartFailed: the engine refused to start it; nothing of ours is left running.
        """
        ...

    def stop(self, timeout_s: float = 60) -> None:
        """Ask it to end, kill it after `timeout_s`, verify; nothing if it does not run. Works when paused, too."""
        ...

    def has_image(self, version: str) -> bool:
        """Whether the image that was obtained as `version` is still here."""
        ...

    def build(self, version: str, context: Path, dockerfile: str, cancelled: Callable[[], bool]) -> None:
        """Build `context` into the kept image of `version`; minutes, up to an hour.

        Raises:
            Refused: the build failed (message: the failing step and its last lines).
            Cancelled: `cancelled()` said so.
            Unavailable: the engine broke off, the deadline passed, or a step failed for want of network or disk.
        """
        ...

    def load_archive(self, version: str, path: Path) -> None:
        """Load a `docker save` archive with one image as the kept image of `version`; names inside are not used.

        Raises:
            Refused: not such an archive, more than one image in it, or an image for another processor.
        """
        ...

    def pull(self, version: str, reference: str, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Pull `host/name:tag` or `host/name@sha256:…` as the kept image of `version`; raises as `build` does."""
        ...

    def remove_old_images(self, keep: Collection[str], now_ms: int) -> None:
        """Remove our images that `plan_removals` names; `keep` holds versions (current, previous, on trial)."""
        ...

    def logs(self, lines: int) -> list[str]:
        """The last `lines` lines of its output, oldest first; empty when there is no container."""
        ...

    def wait_for_change(self, timeout_s: float) -> bool:
        """Wait until the controller started, ended, was paused or removed; False when nothing happened.

        Changes between two calls are not missed. One caller at a time. `close` ends it at once.
        """
        ...

    def close(self) -> None:
        """Let go of the engine; a container goes on running, a plain process is stopped."""
        ...


def image_name(version: str) -> str:
    """`teg-controller-<version>:latest`; a version Docker would refuse (`v1.0-RC1`) gets a made-over, unique name."""
    if _IMAGE_NAME.fullmatch(version):
        return f"{IMAGE_PREFIX}{version}:latest"
    plain = re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")
    return f"{IMAGE_PREFIX}{plain or 'version'}-{hashlib.sha256(version.encode()).hexdigest()[:12]}:latest"


def plan_removals(images: Iterable[KeptImage], keep: Collection[str], now_ms: int) -> list[str]:
    """Which of our images go: not in use, not of a version in `keep`, and too old or beyond the size limit.

    A clock that is behind makes images look young, so nothing is removed by mistake after a start without network.
    """
    kept_names = {image_name(version) for version in keep}
    removable = [image for image in images if not image.in_use and image.name not in kept_names]
    removals, total_bytes = [], 0
    for image in sorted(removable, key=lambda image: image.created_ms, reverse=True):
        total_bytes += image.size_bytes
        if now_ms - image.created_ms > OLD_IMAGE_MAX_AGE_MS or total_bytes > OLD_IMAGES_MAX_BYTES:
            removals.append(image.name)
    return removals
