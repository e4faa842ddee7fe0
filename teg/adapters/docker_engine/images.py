"""Images of the controller: built, loaded or pulled, each kept under the name of its version."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from teg.adapters.docker_engine.client import Engine, NotThere
from teg.adapters.docker_engine.image_archive import check_archive, renamed_archive
from teg.adapters.docker_engine.parsing import LABEL_MANAGED, LABEL_VERSION
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.runtime import IMAGE_PREFIX, KeptImage, image_name, plan_removals

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


class Images:
    """Every image call takes a client of its own, streams, and can be cancelled."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, version: str) -> str | None:
        """The id of the kept image of `version`."""
        try:
            return self._engine.call(lambda client: str(client.inspect_image(image_name(version))["Id"]))
        except NotThere:
            return None

    def build(self, version: str, context: Path, dockerfile: str, cancelled: Callable[[], bool]) -> None:
        if not context.is_dir():
            raise Refused(f"the build context {context} is not a directory")
        before = self.find(version)

        def run(client: Any) -> None:
            lines = client.build(
                path=str(context),
                dockerfile=dockerfile,
                tag=image_name(version),
                labels={LABEL_MANAGED: "1", LABEL_VERSION: version},
                rm=True,
                forcerm=True,
                decode=True,
            )
            _follow(lines, f"building version {version}")

        self._engine.call(run, BUILD_DEADLINE_S, cancelled)
        self._drop_superseded(before, version)

    def load_archive(self, version: str, path: Path) -> None:
        check_archive(path)
        before, name = self.find(version), image_name(version)

        def run(client: Any) -> None:
            _follow(client.load_image(renamed_archive(path, name)), f"loading version {version}")

        self._engine.call(run, LOAD_DEADLINE_S, silence_s=SILENCE_S)
        self._accept(version)
        self._drop_superseded(before, version)

    def pull(self, version: str, reference: str, cancelled: Callable[[], bool]) -> None:
        repository, tag = split_reference(reference)
        reference = f"{repository}@{tag}" if tag.startswith("sha256:") else f"{repository}:{tag}"
        before, already_here = self.find(version), self._is_here(reference)

        def run(client: Any) -> None:
            _follow(client.pull(repository, tag=tag, stream=True, decode=True), f"pulling {reference}")
            client.tag(reference, *image_name(version).rsplit(":", 1))

        self._engine.call(run, PULL_DEADLINE_S, cancelled, SILENCE_S)
        if not already_here:
            self._untag(reference)
        self._accept(version)
        self._drop_superseded(before, version)

    def remove_old(self, keep: Collection[str], now_ms: int) -> None:
        for name in plan_removals(self._kept(), keep, now_ms):
            self._untag(name)

    def _accept(self, version: str) -> None:
        """An image for another processor can only crash; raises Refused and lets go of it."""
        its = self._engine.call(lambda client: client.inspect_image(image_name(version)).get("Architecture"))
        ours = self._engine.call(lambda client: client.version()["Arch"])
        if its not in (ours, None, ""):
            self._untag(image_name(version))
            raise Refused(f"version {version} is an image for {its}, this device is {ours}")

    def _is_here(self, reference: str) -> bool:
        try:
            self._engine.call(lambda client: client.inspect_image(reference))
        except NotThere:
            return False
        return True

    def _drop_superseded(self, image_id: str | None, version: str) -> None:
        """The image that had the name before: removed, or while a container uses it named so that it is found later."""
        if image_id is None or image_id == self.find(version):
            return
        try:
            self._engine.call(lambda client: client.remove_image(image_id))
        except NotThere:
            return
        except Refused:
            name = f"{IMAGE_PREFIX}superseded-{image_id.removeprefix('sha256:')[:12]}"
            self._engine.call(lambda client: client.tag(image_id, name, "latest"))

    def _untag(self, name: str) -> None:
        """Takes the name away, and the image with its last name. Never forced: what somebody uses stays."""
        try:
            self._engine.call(lambda client: client.remove_image(name), 120.0)
        except (NotThere, Refused):
            return

    def _kept(self) -> list[KeptImage]:
        return self._engine.call(_our_images)


def _our_images(client: Any) -> list[KeptImage]:
    labelled = client.images(filters={"label": f"{LABEL_MANAGED}=1"})
    named = client.images(filters={"reference": f"{IMAGE_PREFIX}*"})
    used = {container["ImageID"] for container in client.containers(all=True)}
    found = {image["Id"]: image for image in [*labelled, *named]}
    return [image for image_id, fields in found.items() for image in kept_images(fields, image_id in used)]


def kept_images(fields: dict[str, Any], in_use: bool) -> Iterator[KeptImage]:
    """One entry for each of *our* names of the image; its id if it has no name at all any more."""
    names = [name for name in fields.get("RepoTags") or [] if name != "<none>:<none>"]
    ours = [name for name in names if name.startswith(IMAGE_PREFIX)]
    for name in ours if names else [fields["Id"]]:
        yield KeptImage(name, int(fields["Created"]) * 1000, int(fields["Size"]), in_use)


def split_reference(reference: str) -> tuple[str, str]:
    """`host/name:tag` or `host/name@sha256:…` into (repository, tag or digest); beside a digest a tag says nothing."""
    named, at, digest = reference.partition("@")
    head, colon, tag = named.rpartition(":")
    repository, tag = (head, tag) if colon and "/" not in tag else (named, "latest")
    return repository, digest if at else tag


def _follow(lines: Iterable[Any], doing: str) -> None:
    """Read the engine's progress to its end.

    Raises:
        Unavailable: an error whose words say that it can pass.
        Refused: any other error, with the last lines of output.
    """
    last: list[str] = []
    for line in lines:
        if not isinstance(line, dict):
            continue
        last = [*last, *str(line.get("stream", "")).splitlines()][-_LAST_LINES:]
        if error := line.get("error"):
            text = f"{doing}: {error}" + "".join(f"\n{said}" for said in last if said.strip())
            raise Unavailable(text) if _PASSING.search(text) else Refused(text)
