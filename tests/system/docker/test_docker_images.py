"""Images in a real Docker Engine: archives, builds, names, a registry."""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import NotFound

from teg.adapters.docker_engine import DockerEngine
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.runtime import image_name
from tests.support.docker_runtime import MONTHS_LATER_MS, SLEEP, assert_untouched, run
from tests.support.engine import BASE_IMAGE, Engine, closing_client, make_image, running_registry, save, write_context
from tests.support.image_archives import Parts, config_of
from tests.support.running import CLOSED_PORT, wait_until

pytestmark = pytest.mark.docker


# --- images ----------------------------------------------------------------------------------------------------------


def test_an_archive_is_loaded_under_our_name_only(
    at: Engine, runtime: DockerEngine, tmp_path: Path, foreign: dict[str, str]
) -> None:
    """The archive says it is `foreign/thing:1`: that name must stay where it is."""
    image = make_image(at, "mine/controller:7", write_context(tmp_path / "context", SLEEP))
    archive = renamed(save(at, tmp_path / "mine.tar", "mine/controller:7"), "foreign/thing:1")
    with closing_client(at.client) as client:
        client.remove_image("mine/controller:7")
    runtime.load_archive("v7", archive)
    with closing_client(at.client) as client:
        assert client.inspect_image(image_name("v7"))["Id"] == image
        assert client.inspect_image(image)["RepoTags"] == [image_name("v7")]
    assert_untouched(at, foreign)
    runtime.start("v7")
    assert runtime.observe().runs("v7")


def renamed(archive: Path, name: str) -> Path:
    """The archive with another name inside, as an attacker would make it."""
    changed = archive.with_suffix(".evil.tar")
    with tarfile.open(archive) as old, tarfile.open(changed, "w") as new:
        for member in old:
            content = old.extractfile(member)
            if member.name == "repositories":
                continue
            if member.name == "manifest.json":
                assert content is not None
                manifest = json.load(content)
                manifest[0]["RepoTags"] = [name]
                body = json.dumps(manifest).encode()
                member.size = len(body)
                path = archive.parent / "manifest"
                path.write_bytes(body)
                with path.open("rb") as file:
                    new.addfile(member, file)
                continue
            new.addfile(member, content)
    return changed


def test_a_compressed_archive_is_loaded(at: Engine, runtime: DockerEngine, tmp_path: Path) -> None:
    make_image(at, "mine/controller:7", write_context(tmp_path / "context", SLEEP))
    archive = save(at, tmp_path / "mine.tar", "mine/controller:7")
    subprocess.run(["gzip", "-1", archive], check=True)
    runtime.load_archive("v7", archive.with_suffix(".tar.gz"))
    assert runtime.has_image("v7")
    with closing_client(at.client) as client:
        client.remove_image("mine/controller:7")


def test_archives_that_are_none_are_refused_before_the_engine_sees_them(
    at: Engine, runtime: DockerEngine, tmp_path: Path
) -> None:
    for name, content in (("text", b"hello"), ("empty", b""), ("zeros", bytes(10_240))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Refused, match=name):
            runtime.load_archive("v1", tmp_path / name)
    assert not runtime.has_image("v1")


def test_an_archive_of_two_images_is_refused(at: Engine, runtime: DockerEngine, tmp_path: Path) -> None:
    first = make_image(at, "mine/one:1", write_context(tmp_path / "context", SLEEP))
    make_image(at, "mine/two:1", write_context(tmp_path / "context", "print(2)\n"))
    archive = save(at, tmp_path / "two.tar", "mine/one:1", "mine/two:1")
    with pytest.raises(Refused, match="exactly one image"):
        runtime.load_archive("v1", archive)
    with closing_client(at.client) as client:
        assert client.inspect_image("mine/one:1")["Id"] == first
        client.remove_image("mine/one:1")
        client.remove_image("mine/two:1")


def test_a_torn_archive_changes_nothing(at: Engine, runtime: DockerEngine, tmp_path: Path) -> None:
    make_image(at, "mine/controller:7", write_context(tmp_path / "context", SLEEP))
    archive = save(at, tmp_path / "mine.tar", "mine/controller:7")
    with closing_client(at.client) as client:
        client.remove_image("mine/controller:7")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises((Refused, Unavailable)):
        runtime.load_archive("v7", archive)
    assert not runtime.has_image("v7")


def test_an_image_for_another_processor_is_refused_and_let_go(
    at: Engine, runtime: DockerEngine, tmp_path: Path
) -> None:
    with closing_client(at.client) as client:
        its = next(name for name in ("s390x", "arm64") if name != client.version()["Arch"])
    parts = Parts(config=config_of(Parts().layers, architecture=its))
    with pytest.raises(Refused, match=its):
        runtime.load_archive("v7", parts.write(tmp_path / "other.tar"))
    assert not runtime.has_image("v7")


def test_a_version_built_again_leaves_no_orphan(at: Engine, runtime: DockerEngine, tmp_path: Path) -> None:
    run(runtime, tmp_path, SLEEP)
    with closing_client(at.client) as client:
        before = client.inspect_image(image_name("v1"))["Id"]
    context = write_context(tmp_path / "context-v1", "import time\nprint('again')\ntime.sleep(600)\n")
    runtime.build("v1", context, "Dockerfile", lambda: False)  # while a container of the old one runs
    with closing_client(at.client) as client:
        assert client.inspect_image(before)["RepoTags"] == [f"teg-controller-superseded-{before[7:19]}:latest"]
    runtime.stop(1)
    runtime.start("v1")
    runtime.remove_old_images(["v1"], MONTHS_LATER_MS)
    with closing_client(at.client) as client, pytest.raises(NotFound):
        client.inspect_image(before)


def test_a_failed_build_says_which_step_and_what_it_printed(at: Engine, runtime: DockerEngine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", "", f"FROM {BASE_IMAGE}\nRUN echo wheel missing && exit 3\n")
    with pytest.raises(Refused) as caught:
        runtime.build("v1", context, "./Dockerfile", lambda: False)
    assert "non-zero code: 3" in str(caught.value) and "wheel missing" in str(caught.value)


def test_a_build_without_network_is_transient(at: Engine, runtime: DockerEngine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", "", "FROM localhost:1/nowhere:1\n")
    with pytest.raises(Unavailable, match="refused"):
        runtime.build("v1", context, "./Dockerfile", lambda: False)


def test_a_cancelled_build_ends_in_the_engine_too(at: Engine, runtime: DockerEngine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", "", f"FROM {BASE_IMAGE}\nRUN sleep 6543\n")

    def sleeping() -> list[Any]:
        with closing_client(at.client) as client:
            return [c for c in client.containers() if "6543" in c["Command"]]

    with pytest.raises(Refused, match="not wanted any more"):
        runtime.build("v1", context, "./Dockerfile", lambda: bool(sleeping()))
    wait_until(lambda: not sleeping(), 20, "the end of the build's container")


# --- a registry ------------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path, at: Engine) -> Iterator[str]:
    with running_registry(tmp_path / "registry", at) as address:
        yield address


def push(at: Engine, name: str) -> str:
    """Push `name`; returns the digest."""
    environment = {"DOCKER_HOST": at.host, "PATH": os.environ["PATH"], "HOME": str(at.directory)}
    done = subprocess.run(
        ["docker", "push", name], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.partition("digest: ")[2].split()[0]


def test_pull_by_tag_and_by_digest(at: Engine, runtime: DockerEngine, tmp_path: Path, registry: str) -> None:
    name = f"{registry}/site/controller"
    image = make_image(at, f"{name}:v5", write_context(tmp_path / "context", SLEEP + "# for the registry\n"))
    digest = push(at, f"{name}:v5")
    with closing_client(at.client) as client:
        client.remove_image(f"{name}:v5")
    runtime.pull("v5", f"{name}:v5")
    runtime.pull("v5-by-digest", f"{name}@{digest}")
    runtime.pull("v5-by-both", f"{name}:moved-meanwhile@{digest}")
    with closing_client(at.client) as client:
        for version in ("v5", "v5-by-digest", "v5-by-both"):
            assert client.inspect_image(image_name(version))["Id"] == image
        # The registry's name is ours to take away again: an image whose last name goes, goes.
        names = {image_name("v5"), image_name("v5-by-digest"), image_name("v5-by-both")}
        assert set(client.inspect_image(image)["RepoTags"]) == names
    runtime.start("v5")
    assert runtime.observe().runs("v5")


def test_a_pull_keeps_a_name_that_was_there_before(
    at: Engine, runtime: DockerEngine, tmp_path: Path, registry: str
) -> None:
    name = f"{registry}/site/theirs:1"
    image = make_image(at, name, write_context(tmp_path / "context", SLEEP))
    push(at, name)
    runtime.pull("v5", name)
    with closing_client(at.client) as client:
        assert name in client.inspect_image(image)["RepoTags"]
        client.remove_image(name)


def test_what_the_registry_does_not_have_is_refused_and_a_registry_that_is_away_is_transient(
    runtime: DockerEngine, tmp_path: Path, at: Engine, registry: str
) -> None:
    make_image(at, f"{registry}/x:1", write_context(tmp_path / "context", SLEEP))
    push(at, f"{registry}/x:1")
    with pytest.raises(Refused, match=r"not found|unknown"):
        runtime.pull("v5", f"{registry}/x:2")
    with pytest.raises(Unavailable, match="refused"):
        runtime.pull("v5", f"127.0.0.1:{CLOSED_PORT}/x:2")
    with closing_client(at.client) as client:
        client.remove_image(f"{registry}/x:1")
