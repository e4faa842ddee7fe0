"""Required signatures, from the server's package to the running container: real gateway, engine and ssh-keygen."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.domain.ota.signatures import NAMESPACE, statement
from tests.support.engine import Engine
from tests.support.ota_device import OtaDevice, ota_device, save_image, write_version

pytestmark = [pytest.mark.docker, pytest.mark.slow]


class Technician:
    """Signs as docs/ota.md says."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(exist_ok=True)
        self._key = directory / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._key], check=True, timeout=20)

    @property
    def allowed(self) -> str:
        kind, key = self._key.with_suffix(".pub").read_text().split()[:2]
        return f'release@example.com namespaces="git,{NAMESPACE}" {kind} {key}\n'

    def sign(self, version: str, package: bytes) -> str:
        text = statement(version, "sha256:" + hashlib.sha256(package).hexdigest())
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(self._key)]
        armored = subprocess.run(command, input=text, capture_output=True, check=True, timeout=20).stdout.decode()
        return "".join(line for line in armored.splitlines() if not line.startswith("-"))


@pytest.fixture
def technician(tmp_path: Path) -> Technician:
    return Technician(tmp_path / "keys", "release")


@pytest.fixture
def device(tmp_path: Path, clean_engine: Engine, technician: Technician) -> Iterator[OtaDevice]:
    signers = tmp_path / "allowed_signers"
    signers.write_text(technician.allowed)
    with ota_device(
        tmp_path, clean_engine, TEG_OTA_REQUIRE_SIGNATURE="on", TEG_OTA_ALLOWED_SIGNERS=str(signers)
    ) as device:
        yield device


def package(device: OtaDevice, directory: Path, version: str) -> bytes:
    write_version(directory / version, version, "works")
    return save_image(device.engine, f"made-elsewhere:{version}", directory / version)


def test_a_signed_package_runs_and_no_other_one_does(device: OtaDevice, tmp_path: Path, technician: Technician) -> None:
    first, second = (package(device, tmp_path, version) for version in ("p1", "p2"))
    assign = device.device.assign_software
    assign("controller", "p1", data=first, algorithm="SHA256", tag=technician.sign("p1", first))
    device.wait_told("UPDATED", "p1")
    assert device.running() == "p1"
    stranger = Technician(tmp_path / "keys", "stranger")
    for tag in (
        None,
        stranger.sign("p2", second),
        technician.sign("p1", second),
        technician.sign("p2", first),
        technician.sign("p2", second)[:-12],
    ):
        before = len(device.updates())
        assign("controller", "p2", data=second, algorithm="SHA256", tag=tag)
        told = device.wait_told("FAILED", "p1", after=before)
        assert "signature" in told["sw_error"]
        device.device.unassign_software()
    assert device.running() == "p1"
    device.wait_measured("p1")
    assign("controller", "p2", data=second, algorithm="SHA256", tag=technician.sign("p2", second))
    device.wait_told("UPDATED", "p2")
    assert device.running() == "p2"


def test_versions_from_git_need_a_signature_too(device: OtaDevice) -> None:
    device.assign("v1")
    told = device.wait_told("FAILED", "UNKNOWN")
    assert "is not a signed tag" in told["sw_error"]
    assert device.running() is None
