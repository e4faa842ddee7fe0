"""Packages against a real engine, with foreign images as tripwires: every tag is where it was, only ids are started."""

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from teg.adapters.docker_engine import BuildRules, DockerEngine, build_context
from teg.domain.errors import Refused
from teg.domain.supervision.container_profile import ControllerProfile
from teg.domain.supervision.image_ids import ImageIds
from teg.domain.supervision.runtime import ImageMissing, image_name
from tests.support.engine import (
    BASE_IMAGE,
    Engine,
    closing_client,
    make_container,
    make_image,
    save,
    write_context,
)
from tests.support.image_archives import Parts, layer, member, pax
from tests.support.states import MemoryState

pytestmark = pytest.mark.docker

GATEWAY = "teg-gateway:latest"
SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"


@pytest.fixture
def tags(clean_engine: Engine, tmp_path: Path) -> Iterator[Callable[[], dict[str, str]]]:
    """What every name in the engine means; the images of other people are there before and after."""
    make_image(clean_engine, GATEWAY, write_context(tmp_path / "gateway", "print('gateway')\n"))
    make_image(clean_engine, "foreign/thing:1", write_context(tmp_path / "foreign", "print('foreign')\n"))

    def now() -> dict[str, str]:
        with closing_client(clean_engine.client) as client:
            found = {tag: image["Id"] for image in client.images(all=True) for tag in image["RepoTags"] or []}
            return {tag: its for tag, its in found.items() if tag != "<none>:<none>"}

    before = now()
    yield now
    foreign = {tag: its for tag, its in now().items() if not tag.startswith("teg-controller-")}
    with closing_client(clean_engine.client) as client:
        client.remove_image(GATEWAY)
        client.remove_image("foreign/thing:1")
    assert foreign == before


@pytest.fixture
def ids() -> ImageIds:
    return ImageIds(MemoryState())


@pytest.fixture
def runtime(clean_engine: Engine, tmp_path: Path, ids: ImageIds) -> Iterator[DockerEngine]:
    profile = ControllerProfile(data_path=tmp_path / "data", logs_path=tmp_path / "logs")
    made = DockerEngine(clean_engine.host, profile, ids)
    yield made
    made.close()


def _evil(tag: str = GATEWAY) -> bytes:
    return b'[{"Config":"evil.json","RepoTags":["%s"],"Layers":["0/layer.tar"]}]' % tag.encode()


def _second_manifest(name: str) -> Callable[[], Parts]:
    config = Parts(layers=[layer({"evil": b"1"})]).config
    return lambda: Parts(after=[member("evil.json", config), member(name, _evil())])


HOSTILE: dict[str, Callable[[], Parts]] = {
    "a second spelling": _second_manifest("./manifest.json"),
    "a second manifest": _second_manifest("manifest.json"),
    "a spelling that climbs": _second_manifest("x/../manifest.json"),
    "a sparse layer": lambda: Parts(layers=[pax({"GNU.sparse.size": "9" * 15}) + member("x", b"1") + bytes(1024)]),
    "a link out": lambda: Parts(after=[member("l", kind=tarfile.SYMTYPE, target="/etc/shadow")]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_package_leaves_the_engine_as_it_was(
    runtime: DockerEngine, tags: Callable[[], dict[str, str]], tmp_path: Path, case: str
) -> None:
    before = tags()
    with pytest.raises(Refused):
        runtime.load_archive("v1", HOSTILE[case]().write(tmp_path / "package.tar"))
    assert tags() == before
    assert not runtime.has_image("v1")


def test_names_inside_a_good_package_say_nothing(
    runtime: DockerEngine, tags: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    """The manifest, and the older `repositories`, both claim the gateway's own image."""
    before = tags()
    parts = Parts(tag=GATEWAY)
    parts.manifest[0]["RepoTags"] = [GATEWAY, "foreign/thing:1", image_name("v0")]
    parts.manifest[0]["Parent"] = before["foreign/thing:1"]
    runtime.load_archive("v1", parts.write(tmp_path / "package.tar"))
    assert {tag: its for tag, its in tags().items() if tag != image_name("v1")} == before
    assert runtime.has_image("v1")


def test_a_package_of_an_image_with_the_same_layer_twice_is_loaded(
    runtime: DockerEngine,
    clean_engine: Engine,
    tmp_path: Path,
) -> None:
    """Older engines save the second one as a link."""
    context = write_context(
        tmp_path / "twice",
        SLEEP,
        f'FROM {BASE_IMAGE}\nCOPY main.py /main.py\nRUN true\nRUN true\nCMD ["python3", "-u", "/main.py"]\n',
    )
    image = make_image(clean_engine, "mine/twice:1", context)
    archive = save(clean_engine, tmp_path / "twice.tar", "mine/twice:1")
    with closing_client(clean_engine.client) as client:
        client.remove_image("mine/twice:1")
    runtime.load_archive("v1", archive)
    with closing_client(clean_engine.client) as client:
        assert client.inspect_image(image_name("v1"))["Id"] == image
    runtime.start("v1")
    assert runtime.observe().runs("v1")


# --- known by id -------------------------------------------------------------------------------------------------


def test_an_image_that_somebody_put_under_our_name_is_not_taken(
    runtime: DockerEngine,
    clean_engine: Engine,
    tmp_path: Path,
    tags: Callable[[], dict[str, str]],
) -> None:
    make_image(clean_engine, image_name("v2"), write_context(tmp_path / "planted", "print('planted')\n"))
    assert not runtime.has_image("v2")
    with pytest.raises(ImageMissing):
        runtime.start("v2")


def test_a_name_that_was_moved_does_not_change_what_is_started(
    runtime: DockerEngine,
    clean_engine: Engine,
    tmp_path: Path,
    ids: ImageIds,
) -> None:
    runtime.build("v1", write_context(tmp_path / "context", SLEEP), "Dockerfile", lambda: False)
    ours = ids.get("v1")
    planted = make_image(clean_engine, image_name("v1"), write_context(tmp_path / "planted", "print('planted')\n"))
    assert planted != ours
    runtime.start("v1")
    with closing_client(clean_engine.client) as client:
        assert client.inspect_container("teg_controller")["Image"] == ours
        assert client.inspect_image(image_name("v1"))["Id"] == planted
    assert runtime.observe().runs("v1")
    runtime.remove_old_images(["v1"], 1 << 50)
    assert runtime.has_image("v1")


def test_building_over_a_planted_name_does_not_remove_their_image(
    runtime: DockerEngine,
    clean_engine: Engine,
    tmp_path: Path,
) -> None:
    planted = make_image(clean_engine, image_name("v1"), write_context(tmp_path / "planted", "print('planted')\n"))
    runtime.build("v1", write_context(tmp_path / "context", SLEEP), "Dockerfile", lambda: False)
    with closing_client(clean_engine.client) as client:
        assert client.inspect_image(planted)["Id"] == planted
        client.remove_image(planted)


def test_at_the_upgrade_the_versions_that_ran_here_are_taken_over_by_name_and_no_others(
    clean_engine: Engine,
    tmp_path: Path,
) -> None:
    for version in ("v1", "v2"):
        make_image(clean_engine, image_name(version), write_context(tmp_path / version, f"print('{version}')\n"))
    state = MemoryState()
    profile = ControllerProfile(data_path=tmp_path / "data", logs_path=tmp_path / "logs")
    upgraded = DockerEngine(clean_engine.host, profile, ImageIds(state, ["v1"]))
    assert upgraded.has_image("v1") and not upgraded.has_image("v2")
    again = DockerEngine(clean_engine.host, profile, ImageIds(state, ["v1", "v2"]))
    assert again.has_image("v1") and not again.has_image("v2")


def test_what_the_running_container_was_made_of_is_known(
    runtime: DockerEngine,
    clean_engine: Engine,
    tmp_path: Path,
    ids: ImageIds,
) -> None:
    image = make_image(clean_engine, image_name("v1"), write_context(tmp_path / "context", SLEEP))
    make_container(clean_engine, "teg_controller", image_name("v1"))
    make_image(clean_engine, image_name("v1"), write_context(tmp_path / "planted", "print('planted')\n"))
    assert runtime.has_image("v1")
    assert ids.get("v1") == image


# --- builds ------------------------------------------------------------------------------------------------------


def test_a_build_has_no_network_where_the_settings_say_so(clean_engine: Engine, tmp_path: Path) -> None:
    profile = ControllerProfile(data_path=tmp_path / "data", logs_path=tmp_path / "logs")
    show = "python3 -c \"import os; print('cards', sorted(os.listdir('/sys/class/net')))\""
    context = write_context(tmp_path / "context", "", f"FROM {BASE_IMAGE}\nRUN {show} && exit 3\n")
    for network, cards in ((False, r"cards \['lo'\]"), (True, r"cards \[.*'eth0'")):
        runtime = DockerEngine(clean_engine.host, profile, ImageIds(MemoryState()), BuildRules(network=network))
        with pytest.raises(Refused, match=cards):
            runtime.build("v1", context, "./Dockerfile", lambda: False)


def test_a_build_step_that_takes_all_memory_is_ended(clean_engine: Engine, tmp_path: Path) -> None:
    profile = ControllerProfile(data_path=tmp_path / "data", logs_path=tmp_path / "logs")
    rules = BuildRules(memory_bytes=64 << 20)
    runtime = DockerEngine(clean_engine.host, profile, ImageIds(MemoryState()), rules)
    context = write_context(
        tmp_path / "context", "", f'FROM {BASE_IMAGE}\nRUN python3 -c "print(len(bytearray(512 << 20)))"\n'
    )
    with pytest.raises(Refused, match="code: 137"):
        runtime.build("v1", context, "./Dockerfile", lambda: False)


def test_what_the_engine_has_no_word_for_in_a_build(clean_engine: Engine, tmp_path: Path) -> None:
    """docs/security.md says so. The day this fails, builds can be given fewer rights."""
    show = "grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status | tr -s '\\t\\n' ' ' && exit 3"
    profile = ControllerProfile(data_path=tmp_path / "data", logs_path=tmp_path / "logs")
    runtime = DockerEngine(clean_engine.host, profile, ImageIds(MemoryState()))
    context = write_context(tmp_path / "context", "", f"FROM {BASE_IMAGE}\nRUN {show}\n")
    with pytest.raises(Refused, match="CapEff: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2"):
        runtime.build("v1", context, "./Dockerfile", lambda: False)
    with closing_client(clean_engine.client) as client, build_context.packed(context, "Dockerfile") as archive:
        for option in ("no-new-privileges", "seccomp=unconfined"):
            query = {"securityopt": json.dumps([option])}
            answer = client._post(client._url("/build"), params=query, data=archive)
            assert (answer.status_code, "security options" in answer.json()["message"]) == (400, True), answer.text
