"""The one container `teg_controller`: looked at, started, stopped, watched."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from docker.errors import NotFound

from teg.adapters.docker_engine import mount_sources
from teg.adapters.docker_engine.client import Engine, EngineClient, NotThere
from teg.adapters.docker_engine.container_options import host_options, not_limited
from teg.adapters.docker_engine.directories import make_directory
from teg.adapters.docker_engine.images import DEFAULT_BUILD_RULES, BuildRules, Images
from teg.adapters.docker_engine.parsing import (
    LABEL_MANAGED,
    LABEL_PROFILE,
    LABEL_VERSION,
    parse_memory_bytes,
    parse_observation,
)
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.container_profile import ControllerProfile, Mount, Rights
from teg.domain.supervision.image_ids import ImageIds
from teg.domain.supervision.runtime import (
    ABSENT,
    CONTAINER_NAME,
    ImageMissing,
    MountRefused,
    Observation,
    StartFailed,
    image_name,
)

#: Creating and starting waits for the storage driver on a slow card.
START_DEADLINE_S = 60.0
STOP_TIMEOUT_S = 60
MAX_LOG_LINES = 1_000
MAX_LOG_LINE = 2_000

logger = logging.getLogger("gateway.docker")

_EVENTS = ("start", "die", "oom", "destroy", "pause", "unpause", "rename")


class DockerEngine:
    """Keeps the promise of `ControllerRuntime` with the engine at `host` (`unix:///var/run/docker.sock`)."""

    def __init__(
        self,
        host: str,
        profile: ControllerProfile,
        ids: ImageIds,
        build_rules: BuildRules = DEFAULT_BUILD_RULES,
        private: Collection[tuple[str, Path]] = (),
    ) -> None:
        self._engine = Engine(host)
        self._private = tuple(private)
        self._unlimited: list[str] = []
        self._profile = profile
        self._images = Images(self._engine, ids, build_rules)
        self._watching: EngineClient | None = None
        self._events_since_ns: int | None = None
        self._closed = False

    def profile(self) -> str:
        return self._profile.fingerprint()

    def loosen(self, rights: Rights) -> None:
        """Of its mounts only those that are safe: the others were the reference's, and nobody asked for them here."""
        self._make_directories()
        mounts: list[Mount] = []
        for mount in rights.mounts:
            try:
                mount_sources.checked([*self._profile.all_mounts()[:2], *mounts, mount], self._private)
                mounts.append(mount)
            except MountRefused as reason:
                logger.warning("a mount of the former container is not kept: %s", reason)
        self._profile = self._profile.loosened(replace(rights, mounts=tuple(mounts)))

    # --- the container -------------------------------------------------------------------------------------

    def observe(self) -> Observation:
        return self._find()[1]

    def memory_bytes(self) -> int | None:
        container_id, seen = self._find()
        if not seen.running:
            return None
        return self._engine.call(
            lambda client: parse_memory_bytes(client.stats(container_id, stream=False, one_shot=True))
        )

    def prepare(self, version: str) -> None:
        seen = self._find()[1]
        if self._images.find(version) is None and not _can_start_old(seen, version):
            raise ImageMissing(f"the image {image_name(version)} is not on this device")
        self._checked_mounts()

    def start(self, version: str) -> None:
        container_id, seen = self._find()
        if seen.running and seen.version == version and seen.profile == self.profile():
            return
        image_id = self._images.find(version)
        mounts = self._checked_mounts()
        if image_id is None:
            self._start_old(container_id, seen, version)
            return
        if seen.exists:
            self.stop(STOP_TIMEOUT_S)
            self._remove(container_id)
        self._start(self._create(version, image_id, mounts), remove_failed=True)

    def _checked_mounts(self) -> list[Mount]:
        self._make_directories()
        return mount_sources.checked(self._profile.all_mounts(), self._private)

    def _make_directories(self) -> None:
        make_directory(self._profile.data_path, self._profile.user, inbox=True)
        make_directory(self._profile.logs_path, self._profile.user)

    def _start_old(self, container_id: str, seen: Observation, version: str) -> None:
        """Its image is gone, but the stopped container still has all it needs: better than no controller."""
        if _can_start_old(seen, version):
            self._start(container_id, remove_failed=False)
            return
        raise ImageMissing(f"the image {image_name(version)} is not on this device")

    def _start(self, container_id: str, remove_failed: bool) -> None:
        try:
            self._engine.call(lambda client: client.start(container_id), START_DEADLINE_S)
        except (Refused, Unavailable) as reason:
            if remove_failed and self._is_created(container_id):
                self._remove(container_id)
                raise StartFailed(str(reason)) from reason
            raise

    def _is_created(self, container_id: str) -> bool:
        """Whether the engine answers again and has not started it: then it was the start that failed."""
        status = self._engine.call(lambda client: client.inspect_container(container_id)["State"].get("Status"))
        return str(status) == "created"

    def _create(self, version: str, image_id: str, mounts: Sequence[Mount]) -> str:
        info = self._engine.call(lambda client: dict(client.info()))
        self._tell_not_limited(info)
        options = host_options(self._profile, mounts, info)
        try:
            return self._engine.call(
                lambda client: self._create_with(client, version, image_id, options), START_DEADLINE_S
            )
        except NotThere as reason:
            raise ImageMissing(f"the image {image_name(version)} ({image_id}) is gone: {reason}") from reason
        except Refused as reason:
            raise StartFailed(str(reason)) from reason

    def _tell_not_limited(self, info: Mapping[str, Any]) -> None:
        found = not_limited(self._profile, info)
        if found != self._unlimited:
            logger.warning("this Docker Engine cannot limit the controller's %s", ", ".join(found) or "nothing")
        self._unlimited = found

    def _create_with(self, client: Any, version: str, image_id: str, options: Mapping[str, Any]) -> str:
        """From the image of that id: its name is only for people, and is not used while it belongs to another one."""
        profile = self._profile
        created = client.create_container(
            _reference(client, version, image_id),
            name=CONTAINER_NAME,
            labels={LABEL_MANAGED: "1", LABEL_VERSION: version, LABEL_PROFILE: self.profile()},
            environment=[f"TEG_CONTROLLER_VERSION={version}", *profile.environment],
            stop_timeout=STOP_TIMEOUT_S,
            user=profile.user or None,
            host_config=client.create_host_config(**options),
        )
        if client.inspect_container(created["Id"])["Image"] != image_id:  # the name was moved a moment ago
            client.remove_container(created["Id"], v=True)
            raise Unavailable(f"the image {image_name(version)} was exchanged while its container was made")
        return str(created["Id"])

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        container_id, seen = self._find()
        if not seen.running:
            return
        if seen.paused:  # a signal would not reach it; and it gets the chance to let go of the inbox
            self._engine.call(lambda client: client.unpause(container_id))
        with suppress(NotThere):
            self._engine.call(lambda client: client.stop(container_id, timeout=int(timeout_s)), timeout_s + 30)
        if self._find()[1].running:
            self._engine.call(lambda client: client.kill(container_id))
            if self._find()[1].running:
                raise Unavailable("the controller could not be stopped: neither SIGTERM nor SIGKILL ended it")

    def _remove(self, container_id: str) -> None:
        with suppress(NotThere):
            self._engine.call(lambda client: client.remove_container(container_id, v=True), START_DEADLINE_S)

    def logs(self, lines: int) -> list[str]:
        container_id, seen = self._find()
        if not seen.exists:
            return []
        count = max(1, min(lines, MAX_LOG_LINES))
        text = self._engine.call(lambda client: bytes(client.logs(container_id, tail=count)).decode(errors="replace"))
        return [line[:MAX_LOG_LINE] for line in text.splitlines()[-count:]]

    def _find(self) -> tuple[str, Observation]:
        """Id and observation of our container; raises NameTaken."""
        try:
            return self._engine.call(lambda client: _identified(client.inspect_container(CONTAINER_NAME)))
        except NotThere:
            return "", ABSENT

    # --- images --------------------------------------------------------------------------------------------

    def has_image(self, version: str) -> bool:
        return self._images.find(version) is not None

    def build(self, version: str, context: Path, dockerfile: str, cancelled: Callable[[], bool]) -> None:
        self._images.build(version, context, dockerfile, cancelled)

    def load_archive(self, version: str, path: Path) -> None:
        self._images.load_archive(version, path)

    def pull(self, version: str, reference: str, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._images.pull(version, reference, cancelled)

    def remove_old_images(self, keep: Collection[str], now_ms: int) -> None:
        self._images.remove_old(keep, now_ms)

    # --- changes -------------------------------------------------------------------------------------------

    def wait_for_change(self, timeout_s: float) -> bool:
        now_ns = time.time_ns()
        since_ns = now_ns if self._events_since_ns is None else self._events_since_ns
        if since_ns > now_ns:  # the clock was set back: what happened in between is not told, so look
            self._events_since_ns = now_ns
            return True
        until_ns = now_ns + int(timeout_s * 1e9)
        event = self._engine.call(lambda client: self._next_event(client, since_ns, until_ns), timeout_s + 15)
        self._events_since_ns = until_ns if event is None else int(event["timeNano"]) + 1
        return event is not None

    def _next_event(self, client: Any, since_ns: int, until_ns: int) -> Mapping[str, Any] | None:
        """The engine replays what happened since `since_ns` and ends the stream at `until_ns` by its own timer."""
        self._watching = client
        try:
            if self._closed:
                return None
            filters = {"type": "container", "container": CONTAINER_NAME, "event": list(_EVENTS)}
            stream = client.events(since=_seconds(since_ns), until=_seconds(until_ns), filters=filters, decode=True)
            event: Mapping[str, Any] | None = next(iter(stream), None)
            return event
        finally:
            self._watching = None

    def close(self) -> None:
        self._closed = True
        if (client := self._watching) is not None:
            client.abort()


def _identified(container: Mapping[str, Any]) -> tuple[str, Observation]:
    return str(container["Id"]), parse_observation(container)


def _seconds(time_ns: int) -> str:
    """Exact: a float of today's seconds has no nanoseconds left, and the last event would come for ever."""
    return f"{time_ns // 10**9}.{time_ns % 10**9:09d}"


def _reference(client: Any, version: str, image_id: str) -> str:
    with suppress(NotFound):
        if client.inspect_image(image_name(version))["Id"] == image_id:
            return image_name(version)
    logger.warning("%s is not the image of version %s any more; it is started by its id", image_name(version), version)
    return image_id


def _can_start_old(seen: Observation, version: str) -> bool:
    return seen.exists and not seen.running and seen.is_of(version)
