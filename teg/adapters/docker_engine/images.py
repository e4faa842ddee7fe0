"""Images of the controller: built, loaded or pulled, each kept under the name of its version, each known by its id.

A name can be moved by everybody who may talk to the engine, and by an image that is loaded; an id is its content.
"""

import logging
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from docker.errors import NotFound

from teg.adapters.docker_engine import build_context
from teg.adapters.docker_engine.client import Engine, NotThere
from teg.adapters.docker_engine.image_archive import MAX_EXPANDED_BYTES, CheckedArchive, check_archive
from teg.adapters.docker_engine.parsing import LABEL_MANAGED, LABEL_VERSION, parse_observation
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.image_ids import ImageIds
from teg.domain.supervision.runtime import (
    CONTAINER_NAME,
    IMAGE_PREFIX,
    KeptImage,
    NameTaken,
    image_name,
    plan_removals,
)

#: A Raspberry Pi compiles for a long time; a hanging engine is noticed in the end nevertheless.
BUILD_DEADLINE_S = 3600.0
PULL_DEADLINE_S = 3600.0
LOAD_DEADLINE_S = 1800.0
#: A pull and a load tell their progress all the time; a build step may say nothing for long.
SILENCE_S = 300.0

#: Reasons in an engine's error text that can pass: network, registry, disk.
_PASSING = re.compile(
    r"no such host|name resolution|could ?n.t resolve|network is unreachable|connection (refused|reset|timed out)"
    r"|i/o timeout|tls handshake timeout|deadline exceeded|server misbehaving|unexpected eof|too ?many ?requests"
    r"|no space left|service unavailable|bad gateway|request canceled",
    re.IGNORECASE,
)
_LAST_LINES = 15
_NO_TAG = "<none>:<none>"
#: Of the engine's disk, left free for everything else.
RESERVE_BYTES = 256 << 20

logger = logging.getLogger("gateway.docker")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRules:
    """What a build may use of this machine; the engine's builder has no way to drop capabilities of its steps."""

    network: bool = True
    memory_bytes: int = 1 << 30
    cpu_shares: int = 256  #: a quarter of what everything else gets when the processor is short


DEFAULT_BUILD_RULES = BuildRules()


class Images:
    """Every image call takes a client of its own, streams, and can be cancelled."""

    def __init__(self, engine: Engine, ids: ImageIds, rules: BuildRules) -> None:
        self._engine = engine
        self._ids = ids
        self._rules = rules

    def find(self, version: str) -> str | None:
        """The id of the image that was obtained as `version`, if it is still here; whatever has its name now."""
        image_id = self._ids.get(version) or self._taken_over(version)
        return image_id if image_id is not None and self._inspect(image_id) is not None else None

    def build(self, version: str, context: Path, dockerfile: str, cancelled: Callable[[], bool]) -> None:
        if not context.is_dir():
            raise Refused(f"the build context {context} is not a directory")

        def run(client: Any, archive: IO[bytes]) -> str | None:
            lines = client.build(
                fileobj=archive,
                custom_context=True,
                dockerfile=build_context.DOCKERFILE,
                tag=image_name(version),
                labels={LABEL_MANAGED: "1", LABEL_VERSION: version},
                rm=True,
                forcerm=True,
                decode=True,
                network_mode=None if self._rules.network else "none",
                container_limits={
                    "memory": self._rules.memory_bytes,
                    "memswap": self._rules.memory_bytes,
                    "cpushares": self._rules.cpu_shares,
                },
            )
            return _follow(lines, f"building version {version}")

        with build_context.packed(context, dockerfile) as archive:
            image_id = self._engine.call(lambda client: run(client, archive), BUILD_DEADLINE_S, cancelled)
        self._keep(version, self._required(image_id or image_name(version)))

    def load_archive(self, version: str, path: Path) -> None:
        checked, name = check_archive(path, self._room()), image_name(version)
        before = self._tags()

        def run(client: Any) -> None:
            _follow(client.load_image(checked.written_anew(name)), f"loading version {version}")

        self._engine.call(run, LOAD_DEADLINE_S, silence_s=SILENCE_S)
        image = self._required(name)
        self._put_back(before, image["Id"], name)
        self._require_loaded(image, checked, name)
        self._accept(version, image)

    def pull(self, version: str, reference: str, cancelled: Callable[[], bool]) -> None:
        repository, tag = split_reference(reference)
        reference = f"{repository}@{tag}" if tag.startswith("sha256:") else f"{repository}:{tag}"
        already_here = self._inspect(reference) is not None

        def run(client: Any) -> Mapping[str, Any]:
            _follow(client.pull(repository, tag=tag, stream=True, decode=True), f"pulling {reference}")
            image: Mapping[str, Any] = client.inspect_image(reference)
            client.tag(image["Id"], *image_name(version).rsplit(":", 1))
            return image

        image = self._engine.call(run, PULL_DEADLINE_S, cancelled, SILENCE_S)
        if not already_here:
            self._untag(reference)
        self._accept(version, image)

    def remove_old(self, keep: Collection[str], now_ms: int) -> None:
        kept_ids = {self._ids.get(version) for version in keep}
        found = self._engine.call(_our_images)
        kept = [replace(image, in_use=image.in_use or image_id in kept_ids) for image_id, image in found]
        for name in plan_removals(kept, keep, now_ms):
            self._untag(name)

    # --- taken as a version's -----------------------------------------------------------------------------------

    def _accept(self, version: str, image: Mapping[str, Any]) -> None:
        """An image for another processor can only crash; raises Refused and lets go of it."""
        ours = self._engine.call(lambda client: client.version()["Arch"])
        if image.get("Architecture") not in (ours, None, ""):
            self._untag(image_name(version))
            raise Refused(f"version {version} is an image for {image.get('Architecture')}, this device is {ours}")
        self._keep(version, image)

    def _keep(self, version: str, image: Mapping[str, Any]) -> None:
        before, image_id = self._ids.get(version), str(image["Id"])
        self._ids.put(version, image_id)
        if before is not None and before != image_id:
            self._drop_superseded(before)

    def _drop_superseded(self, image_id: str) -> None:
        """What this version was before: removed, or while a container uses it named so that it is found later."""
        try:
            self._engine.call(lambda client: client.remove_image(image_id))
        except NotThere:
            return
        except Refused:
            name = f"{IMAGE_PREFIX}superseded-{image_id.removeprefix('sha256:')[:12]}"
            self._engine.call(lambda client: client.tag(image_id, name, "latest"))

    def _taken_over(self, version: str) -> str | None:
        """Images from before ids were recorded: of the container that runs the version, or at the upgrade by name."""
        image_id = self._engine.call(lambda client: _image_of_ours(client, version))
        if image_id is None and self._ids.may_take_over(version):
            found = self._inspect(image_name(version))
            image_id = None if found is None else str(found["Id"])
        if image_id is not None:
            logger.info("the image of version %s is %s from now on, whatever has its name", version, image_id[:19])
            self._ids.put(version, image_id)
        return image_id

    # --- a load must not touch anything else --------------------------------------------------------------------

    def _room(self) -> int:
        """What an image may expand to: what the engine's disk has, where it is ours to see."""
        root = self._engine.call(lambda client: client.info().get("DockerRootDir"))
        with suppress(OSError, TypeError):
            return max(0, min(MAX_EXPANDED_BYTES, shutil.disk_usage(root).free - RESERVE_BYTES))
        return MAX_EXPANDED_BYTES

    def _tags(self) -> dict[str, str]:
        images = self._engine.call(lambda client: client.images(all=True))
        return {tag: str(image["Id"]) for image in images for tag in image.get("RepoTags") or [] if tag != _NO_TAG}

    def _put_back(self, before: Mapping[str, str], loaded_id: str, name: str) -> None:
        """The archive was written by us with one name in it. An engine that moves another one all the same is undone.

        Tags that somebody else moves meanwhile, to images of theirs, are none of our business.
        """
        moved = [tag for tag, image_id in self._tags().items() if tag != name and image_id == loaded_id]
        moved = [tag for tag in moved if before.get(tag) != loaded_id]
        for tag in moved:
            if tag in before:
                self._tag(before[tag], tag)
            else:
                self._untag(tag)
        if moved:
            self._untag(name)
            raise Refused(f"loading the package moved {', '.join(moved[:5])}, which was put back: it is not used")

    def _tag(self, image_id: str, name: str) -> None:
        self._engine.call(lambda client: client.tag(image_id, *name.rsplit(":", 1)))

    def _require_loaded(self, image: Mapping[str, Any], checked: CheckedArchive, name: str) -> None:
        """The name could belong to another image by now. Engines with containerd's store have ids of another kind."""
        layers = tuple((image.get("RootFS") or {}).get("Layers") or ())
        classic = image["Id"] == checked.digest
        if layers != checked.diff_ids or not (classic or self._has_containerd_store()):
            self._untag(name)
            raise Refused(f"after loading, {name} is not the image of the package: {str(image['Id'])[:80]}")

    def _has_containerd_store(self) -> bool:
        status = self._engine.call(lambda client: client.info().get("DriverStatus")) or []
        return ["driver-type", "io.containerd.snapshotter.v1"] in status

    # --- asking -------------------------------------------------------------------------------------------------

    def _inspect(self, reference: str) -> Mapping[str, Any] | None:
        try:
            return dict(self._engine.call(lambda client: client.inspect_image(reference)))
        except NotThere:
            return None

    def _required(self, reference: str) -> Mapping[str, Any]:
        found = self._inspect(reference)
        if found is None:
            raise Unavailable(f"the image {reference} was made and is gone again")
        return found

    def _untag(self, name: str) -> None:
        """Takes the name away, and the image with its last name. Never forced: what somebody uses stays."""
        try:
            self._engine.call(lambda client: client.remove_image(name), 120.0)
        except (NotThere, Refused):
            return


def _our_images(client: Any) -> list[tuple[str, KeptImage]]:
    labelled = client.images(filters={"label": f"{LABEL_MANAGED}=1"})
    named = client.images(filters={"reference": f"{IMAGE_PREFIX}*"})
    used = {container["ImageID"] for container in client.containers(all=True)}
    found = {image["Id"]: image for image in [*labelled, *named]}
    return [(str(its), image) for its, fields in found.items() for image in kept_images(fields, its in used)]


def _image_of_ours(client: Any, version: str) -> str | None:
    """The image of our container, if it was made from `version`."""
    try:
        container = client.inspect_container(CONTAINER_NAME)
        seen = parse_observation(container)
    except (NotFound, NameTaken):
        return None
    return str(container["Image"]) if seen.is_of(version) else None


def kept_images(fields: dict[str, Any], in_use: bool) -> Iterator[KeptImage]:
    """One entry for each of *our* names of the image; its id if it has no name at all any more."""
    names = [name for name in fields.get("RepoTags") or [] if name != _NO_TAG]
    ours = [name for name in names if name.startswith(IMAGE_PREFIX)]
    for name in ours if names else [fields["Id"]]:
        yield KeptImage(name, int(fields["Created"]) * 1000, int(fields["Size"]), in_use)


def split_reference(reference: str) -> tuple[str, str]:
    """`host/name:tag` or `host/name@sha256:…` into (repository, tag or digest); beside a digest a tag says nothing."""
    named, at, digest = reference.partition("@")
    head, colon, tag = named.rpartition(":")
    repository, tag = (head, tag) if colon and "/" not in tag else (named, "latest")
    return repository, digest if at else tag


def _follow(lines: Iterable[Any], doing: str) -> str | None:
    """Read the engine's progress to its end; returns the id of the image where it tells one.

    Raises:
        Unavailable: an error whose words say that it can pass.
        Refused: any other error, with the last lines of output.
    """
    last: list[str] = []
    image_id: str | None = None
    for line in lines:
        if not isinstance(line, dict):
            continue
        if isinstance(aux := line.get("aux"), dict) and isinstance(aux.get("ID"), str):
            image_id = aux["ID"]
        last = [*last, *str(line.get("stream", "")).splitlines()][-_LAST_LINES:]
        if error := line.get("error"):
            text = f"{doing}: {error}" + "".join(f"\n{said}" for said in last if said.strip())
            raise Unavailable(text) if _PASSING.search(text) else Refused(text)
    return image_id
