"""Updates of a whole device: real gateway process, real Docker Engine, Git and registry, the server's stand-in."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.domain.ota.checksums import checksum
from teg.domain.ota.job import Phase
from teg.domain.supervision.runtime import image_name
from teg.simulator.thingsboard.faults import when
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.engine import Engine, closing_client, make_container, make_image, running_registry, write_context
from tests.support.ota_device import (
    TRIAL_S,
    OtaDevice,
    git,
    ota_device,
    push_image,
    save_image,
    write_version,
)
from tests.support.running import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture
def device(tmp_path: Path, clean_engine: Engine) -> Iterator[OtaDevice]:
    with ota_device(tmp_path, clean_engine) as device:
        yield device


@pytest.fixture
def running(tmp_path: Path, clean_engine: Engine) -> Iterator[OtaDevice]:
    """A device that runs v1, which it had before; how it gets a first one: `test_the_life_of_a_device`."""
    with ota_device(tmp_path, clean_engine, provided="v1") as device:
        device.wait_measured("v1")
        yield device


def test_the_life_of_a_device(device: OtaDevice, tmp_path: Path) -> None:
    """Cold start, update, a version that crashes, one without heartbeat, and back; nothing foreign is touched."""
    foreign_image = make_image(device.engine, "foreign:1", write_context(tmp_path / "foreign", "print(1)\n"))
    foreign_container = make_container(device.engine, "foreign", "foreign:1")

    device.assign("v1")
    device.wait_told("UPDATED", "v1")
    assert device.states()[-5:] == ["DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING", "UPDATED"]
    device.wait_measured("v1")

    device.assign("v2")
    device.wait_told("UPDATED", "v2")
    assert device.running() == "v2"
    assert device.last()["current_sw_title"] == "controller"
    device.wait_measured("v2")

    device.assign("v3")
    told = device.wait_told("FAILED", "v2")
    assert "version v3 did not stay up" in told["sw_error"]
    assert "exit code 1" in told["sw_error"]
    assert "the sensor of v3 does not answer" in told["sw_error"]
    assert device.running() == "v2"
    device.wait_measured("v2")

    device.assign("v4")
    told = device.wait_told("FAILED", "v2", after=len(device.updates()))
    assert "version v4 sent no heartbeat" in told["sw_error"]
    assert device.running() == "v2"
    device.wait_measured("v2")

    before = len(device.updates())
    device.assign("v1")
    device.wait_told("UPDATED", "v1")
    assert device.states(before) == ["UPDATING", "UPDATED"]
    device.wait_measured("v1")

    with closing_client(device.engine.client) as client:
        assert client.inspect_image("foreign:1")["Id"] == foreign_image
        assert client.inspect_container("foreign")["Id"] == foreign_container
        client.remove_container("foreign")
        client.remove_image("foreign:1")


def test_a_bad_version_is_tried_again_only_when_it_is_assigned_anew(running: OtaDevice) -> None:
    running.assign("v3")
    running.wait_told("FAILED", "v1")
    before, container = len(running.updates()), running.container_id()
    running.device.kick()
    running.device.wait_connected()
    running.gateway.kill()
    running.gateway.start()
    running.device.wait_for(lambda device: len(device.attribute_requests) > 3, 30)
    running.wait_measured("v1")
    assert running.states(before) == []
    assert running.container_id() == container
    running.device.set_shared({"sw_version": "v3"})
    running.wait_told("FAILED", "v1", after=before + 1)


def test_the_same_version_is_only_remembered(running: OtaDevice) -> None:
    container, before = running.container_id(), len(running.updates())
    running.device.unassign_software()
    running.assign("v1")
    running.wait_told("UPDATED", "v1", after=before)
    assert running.container_id() == container
    assert set(running.states(before)) == {"UPDATED"}


def test_a_version_that_looks_like_a_number_stays_text_on_the_server(running: OtaDevice) -> None:
    write_version(running.repository / "docker", "1.10", "works")
    git(running.repository, "commit", "-q", "-am", "1.10")
    git(running.repository, "tag", "1.10")
    running.assign("1.10")
    running.wait_told("UPDATED", "v1.10")
    assert running.device.latest("current_sw_version") == "v1.10"
    assert running.running() == "1.10"


def test_a_version_is_fetched_from_the_remote_and_known_ones_need_none(running: OtaDevice, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    git(tmp_path, "clone", "-q", str(running.repository), str(remote))
    git(running.repository, "remote", "add", "origin", str(remote))
    write_version(remote / "docker", "v9", "works")
    git(remote, "commit", "-q", "-am", "v9")
    git(remote, "tag", "v9")
    running.assign("v9")
    running.wait_told("UPDATED", "v9")
    remote.rename(tmp_path / "gone")
    running.assign("v5")
    running.wait_told("UPDATED", "v5")


def test_a_hostile_version_is_refused_before_git_and_docker_see_it(running: OtaDevice, tmp_path: Path) -> None:
    canary, container = tmp_path / "canary", running.container_id()
    for version in (f"--upload-pack=touch {canary}", f"v1;touch {canary}", "../x", f"$(touch {canary})"):
        before = len(running.updates())
        running.assign(version)
        told = running.wait_told("FAILED", "v1", after=before)
        assert "is not accepted" in told["sw_error"]
        assert not canary.exists()
        assert running.container_id() == container


def test_unassigned_in_mid_update_nothing_is_restarted(running: OtaDevice) -> None:
    running.assign("v1")
    running.wait_told("UPDATED", "v1")
    container, before = running.container_id(), len(running.updates())
    write_version(running.repository / "docker", "slow", "works")
    dockerfile = running.repository / "docker" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "RUN sleep 60\n")
    git(running.repository, "commit", "-q", "-am", "slow")
    git(running.repository, "tag", "slow")
    running.assign("slow")
    wait_until(lambda: "VERIFIED" in running.states(before), 30, "the build of the slow version")
    running.device.unassign_software()
    running.wait_told("UPDATED", "v1", 30, after=before)
    assert running.container_id() == container
    running.wait_measured("v1")


def test_a_newer_version_while_building_wins(running: OtaDevice) -> None:
    before = len(running.updates())
    write_version(running.repository / "docker", "slow", "works")
    dockerfile = running.repository / "docker" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "RUN sleep 60\n")
    git(running.repository, "commit", "-q", "-am", "slow")
    git(running.repository, "tag", "slow")
    running.assign("slow")
    wait_until(lambda: "VERIFIED" in running.states(before), 30, "the build of the slow version")
    running.assign("v2")
    running.wait_told("UPDATED", "v2", 60)
    assert running.running() == "v2"


def test_a_version_that_stops_sending_a_key_is_rolled_back(tmp_path: Path, clean_engine: Engine) -> None:
    with ota_device(tmp_path, clean_engine, TEG_OTA_REQUIRE_KEYS="on") as device:
        device.assign("v1")
        device.wait_told("UPDATED", "v1")
        enough = 5 * (2 * TRIAL_S + 1)  # five records a second, over both spans that are looked at
        wait_until(lambda: device.gateway.archived() > enough, 40, "a history to compare with")
        device.assign("v6")
        told = device.wait_told("FAILED", "v1")
        assert "version v6 no longer sends controller" in told["sw_error"]
        device.assign("v2")
        device.wait_told("UPDATED", "v2")


# --- the other sources ------------------------------------------------------------------------------------------


def test_images_of_an_allowed_registry(tmp_path: Path, clean_engine: Engine) -> None:
    with (
        running_registry(tmp_path / "registry", clean_engine) as address,
        ota_device(tmp_path, clean_engine, TEG_OTA_REGISTRIES=address) as device,
    ):
        for version, behaviour in (("r1", "works"), ("r2", "works"), ("r3", "crashes")):
            write_version(tmp_path / version, version, behaviour)
        name = f"{address}/controller"
        push_image(clean_engine, f"{name}:r1", tmp_path / "r1")
        digest = push_image(clean_engine, f"{name}:r2", tmp_path / "r2")
        push_image(clean_engine, f"{name}:r3", tmp_path / "r3")

        device.device.assign_software("controller", "r1", url=name)
        device.wait_told("UPDATED", "r1")
        device.wait_measured("r1")
        device.device.assign_software("controller", "r2", url=f"{name}@{digest}")
        device.wait_told("UPDATED", "r2")
        device.wait_measured("r2")
        device.device.assign_software("controller", "r3", url=f"{name}:r3")
        told = device.wait_told("FAILED", "r2")
        assert "the sensor of r3 does not answer" in told["sw_error"]

        device.device.assign_software("controller", "r4", url="evil.example:5000/controller:r4")
        told = device.wait_told("FAILED", "r2", after=len(device.updates()))
        assert "not in TEG_OTA_REGISTRIES" in told["sw_error"]
        device.device.assign_software("controller", "r5", url=f"{name}@sha256:{'0' * 64}")
        device.wait_told("FAILED", "r2", after=len(device.updates()))
        device.wait_measured("r2")


def test_packages_of_the_server(running: OtaDevice, tmp_path: Path) -> None:
    """Downloaded over broken connections and verified; damaged, or longer than said, they never reach the engine."""
    write_version(tmp_path / "p2", "p2", "works")
    data = save_image(running.engine, "somebody/else:latest", tmp_path / "p2")
    cut = when(lambda message: message.topic.endswith(("/chunk/40", "/chunk/41")), times=2)
    running.server.faults.close_before_puback = cut
    running.device.assign_software("controller", "p2", data, algorithm="CRC32")
    running.wait_told("UPDATED", "p2", 120)
    assert cut.struck == 2
    asked = [publish.topic for publish in running.device.publishes if publish.topic.startswith("v2/sw/request/")]
    assert sum(topic.endswith("/chunk/0") for topic in asked) == 1, "an interrupted download began anew"
    running.wait_measured("p2")
    with closing_client(running.engine.client) as client:
        assert client.images(name="somebody/else") == []

    before = len(running.updates())
    running.device.assign_software("controller", "p3", data[:2_000_000], checksum="00" * 32)
    told = running.wait_told("FAILED", "p2", 60, after=before)
    assert "the package is corrupt" in told["sw_error"]
    assert running.states(before)[-1] == "FAILED"

    before = len(running.updates())
    running.device.assign_software("controller", "p4", b"this is no archive" * 1000)
    told = running.wait_told("FAILED", "p2", 60, after=before)
    assert "docker save" in told["sw_error"]

    packages = running.gateway.data_path / "ota" / "packages"
    wait_until(lambda: list(packages.iterdir()) == [], 10, "the temporary files gone")
    running.wait_measured("p2")


# --- kill -9: samples. In memory (tests/unit/ota) every step is met; the other phases for real by `make torture` ------


def deep(phase: Phase) -> Any:
    return pytest.param(phase, marks=pytest.mark.torture)


def phase_of(device: OtaDevice) -> str:
    found = device.gateway.rows("SELECT value FROM state WHERE key = 'ota.job'")
    return str(json.loads(str(found[0][0]))["phase"]) if found else ""


def killed_in(device: OtaDevice, phase: Phase, timeout_s: float = 60) -> bool:
    """Watch the persisted phase without a pause and kill the gateway in `phase`; False if it was over too soon."""
    deadline = time.monotonic() + timeout_s
    while phase_of(device) != phase:
        if device.states()[-1:] in (["UPDATED"], ["FAILED"]) and phase_of(device) == "":
            return False
        assert time.monotonic() < deadline, f"the update never came to {phase}"
    device.gateway.kill()
    return phase_of(device) == phase


def wait_begun(device: OtaDevice, before: int) -> None:
    wait_until(lambda: len(device.updates()) > before, 30, "the begin of the update")


@pytest.mark.parametrize("phase", [deep(Phase.INSTALLING), Phase.REPLACING, deep(Phase.TRIAL), deep(Phase.COMMITTING)])
def test_killed_in_a_good_update(running: OtaDevice, phase: Phase) -> None:
    """Some phases last milliseconds: an update that ran through before the kill is followed by another one."""
    killed, versions = False, ["v2", "v5", "v1", "v2", "v5", "v1"]
    while not killed:
        version, before = versions.pop(0), len(running.updates())
        running.assign(version)
        wait_begun(running, before)
        killed = killed_in(running, phase)
        if running.gateway.process is None:
            running.gateway.start()
        wait_until(lambda: running.running() is not None, 20, "a running controller after the kill")
        running.wait_told("UPDATED", version)
        assert running.running() == version
        running.wait_measured(version)


@pytest.mark.parametrize("phase", [deep(Phase.TRIAL), Phase.ROLLING_BACK, deep(Phase.FAILING)])
def test_killed_in_a_failing_update(running: OtaDevice, phase: Phase) -> None:
    killed, tries = False, 6
    while not killed:
        before, tries = len(running.updates()), tries - 1
        assert tries, f"never killed in {phase}"
        running.device.unassign_software()
        running.assign("v4")
        wait_begun(running, before)
        killed = killed_in(running, phase)
        if running.gateway.process is None:
            running.gateway.start()
        wait_until(lambda: running.running() in ("v1", "v4"), 20, "a running controller after the kill")
        told = running.wait_told("FAILED", "v1", after=before)
        assert "no heartbeat" in told["sw_error"]
        assert running.running() == "v1"
        running.wait_measured("v1")


@pytest.mark.parametrize("phase", [Phase.FETCHING, deep(Phase.VERIFYING)])
def test_killed_while_a_package_arrives(running: OtaDevice, tmp_path: Path, phase: Phase) -> None:
    write_version(tmp_path / "p2", "p2", "works")
    data = save_image(running.engine, "package:1", tmp_path / "p2")
    slow = checksum("MURMUR3_128", [data])  # verified for seconds
    before = len(running.updates())
    running.device.assign_software("controller", "p2", data, algorithm="MURMUR3_128", checksum=slow)
    wait_begun(running, before)
    part = running.gateway.data_path / "ota" / "packages"
    if phase is Phase.FETCHING:
        wait_until(lambda: any(path.stat().st_size > 1 << 20 for path in part.glob("*.part")), 60, "a first megabyte")
    assert killed_in(running, phase)
    assert running.running() == "v1"
    held = max(path.stat().st_size for path in part.glob("*.part"))
    before = len(running.device.publishes)
    running.gateway.start()
    running.wait_told("UPDATED", "p2", 120)
    asked = [
        int(publish.topic.rsplit("/", 1)[1])
        for publish in running.device.publishes[before:]
        if "/chunk/" in publish.topic
    ]
    assert all(number >= held // 32_768 for number in asked), "what was on the disk was asked for again"
    assert running.running() == "p2"


def test_killed_in_the_very_first_start_the_first_version_comes_to_run(device: OtaDevice) -> None:
    device.assign("v1")
    assert killed_in(device, Phase.TRIAL)
    device.gateway.start()
    device.wait_told("UPDATED", "v1")
    device.wait_measured("v1")


def test_a_removed_image_is_built_again(running: OtaDevice) -> None:
    with closing_client(running.engine.client) as client:
        running.gateway.kill()
        client.remove_container("teg_controller", force=True)
        client.remove_image(image_name("v1"), force=True)
    running.gateway.start()
    running.wait_measured("v1", 90)


def test_a_cold_start_without_network_runs_the_default_version(tmp_path: Path, clean_engine: Engine) -> None:
    with ThingsBoard(packet_log=0) as server:
        device = OtaDevice(tmp_path, server, clean_engine, TEG_DEFAULT_CONTROLLER_VERSION="v1")
        server.stop_listening()
        with device.gateway:
            wait_until(lambda: device.running() == "v1", 60, "the default version")
            wait_until(lambda: device.gateway.archived() > 5, 20, "its measurements in the archive")
            server.start_listening()
            device.wait_told("UPDATED", "v1")
            device.wait_measured("v1")


def test_a_graceful_stop_in_the_trial_loses_nothing(running: OtaDevice) -> None:
    running.assign("v2")
    wait_until(lambda: phase_of(running) == Phase.TRIAL, 30, "the trial")
    assert running.gateway.stop() == 0
    running.gateway.start()
    running.wait_told("UPDATED", "v2")
    assert running.running() == "v2"
