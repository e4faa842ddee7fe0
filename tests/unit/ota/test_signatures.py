"""Signed software: what docs/ota.md tells a technician to do is what the gateway accepts, and nothing else is."""

import base64
import hashlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.ssh_signatures import SshSignatures
from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import AcceptRules, Assignment, Source, parse_assignment
from teg.domain.ota.signatures import carried_signature, statement
from teg.domain.ota.sources import check_signature

DOC = (Path(__file__).resolve().parents[3] / "docs" / "ota.md").read_text()
PACKAGE = b"a package"
DIGEST = "sha256:" + hashlib.sha256(PACKAGE).hexdigest()
SIGNED = AcceptRules(registries=("r.example",), signed_only=True)


def shell(script: str, directory: Path) -> None:
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=directory, check=True, timeout=60)


def blocks() -> list[str]:
    section = DOC.split("## Signed software\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The technician's directory after following the page, word by word."""
    directory = tmp_path_factory.mktemp("desk")
    (directory / "controller-v2.tar.gz").write_bytes(PACKAGE)
    for block in blocks():
        shell(block, directory)
    return directory


@pytest.fixture
def signature(desk: Path) -> str:
    return (desk / "signature").read_text()


@pytest.fixture
def signatures(desk: Path) -> SshSignatures:
    return SshSignatures(desk / "allowed_signers")


def package(signature: str, **changes: Any) -> Assignment:
    wanted = {
        "version": "v2",
        "size": len(PACKAGE),
        "checksum": DIGEST[7:],
        "checksum_algorithm": "SHA256",
        "tag": signature,
    }
    return parse_assignment(wanted | changes, SIGNED)


def test_the_page_has_a_block_for_every_step() -> None:
    assert len(blocks()) == 3


def test_the_signature_of_the_page_fits_into_the_tag_of_a_package(signature: str) -> None:
    assert len(signature) == 236 <= 255
    assert "236 characters" in DOC


def test_a_signed_package_is_accepted(signatures: SshSignatures, signature: str) -> None:
    check_signature(signatures, package(signature))
    assert signatures.verify(statement("v2", DIGEST), signature) == "release@example.com"


def test_a_signed_image_is_accepted(signatures: SshSignatures, signature: str) -> None:
    wanted = {"version": "v2", "url": f"r.example/team/controller@{DIGEST}", "signature": signature}
    check_signature(signatures, parse_assignment(wanted, SIGNED))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "v3"},
        {"checksum": "0" * 64},
        {"checksum_algorithm": "SHA512", "checksum": DIGEST[7:] * 2},
        {"version": "v2\nversion v3"},
    ],
)
def test_it_serves_for_no_other_version_or_content(
    signatures: SshSignatures, signature: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(Refused):
        check_signature(signatures, package(signature, **changes))


def _signed_by(key: Path, text: bytes, namespace: str = "teg-ota") -> str:
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key)], input=text, capture_output=True, check=True
    )
    return carried_signature({"signature": done.stdout.decode()})


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    return tmp_path / "key"


def test_another_key_is_refused(signatures: SshSignatures, stranger: Path) -> None:
    with pytest.raises(Refused, match="no good signature"):
        signatures.verify(statement("v2", DIGEST), _signed_by(stranger, statement("v2", DIGEST)))


@pytest.mark.parametrize("namespace", ["file", "git", "email"])
def test_a_signature_made_for_something_else_is_refused(signatures: SshSignatures, desk: Path, namespace: str) -> None:
    made = _signed_by(desk / "release_key", statement("v2", DIGEST), namespace)
    with pytest.raises(Refused, match="no good signature"):
        signatures.verify(statement("v2", DIGEST), made)


@pytest.mark.parametrize("restriction", ['valid-before="20200101"', 'namespaces="git"', "cert-authority"])
def test_restrictions_in_the_file_hold(desk: Path, signature: str, tmp_path: Path, restriction: str) -> None:
    key = (desk / "release_key.pub").read_text()
    (tmp_path / "signers").write_text(f"release@example.com {restriction} {key}")
    with pytest.raises(Refused, match="no good signature"):
        SshSignatures(tmp_path / "signers").verify(statement("v2", DIGEST), signature)


def test_each_of_several_keys_may_sign(desk: Path, signature: str, tmp_path: Path, stranger: Path) -> None:
    lines = [f"a@example.com {stranger.with_suffix('.pub').read_text()}"]
    lines += [f"b@example.com,c@example.com {(desk / 'release_key.pub').read_text()}"]
    (tmp_path / "signers").write_text("# keys of the release team\n" + "".join(lines))
    assert SshSignatures(tmp_path / "signers").verify(
        statement("v2", DIGEST), _signed_by(stranger, statement("v2", DIGEST))
    )
    assert SshSignatures(tmp_path / "signers").verify(statement("v2", DIGEST), signature) == "b@example.com"


@pytest.mark.parametrize("content", ["", "nonsense\n", "release@example.com ssh-ed25519 AAAA\n"])
def test_a_file_without_a_usable_key_allows_nothing(tmp_path: Path, signature: str, content: str) -> None:
    (tmp_path / "signers").write_text(content)
    for signers in (tmp_path / "signers", tmp_path / "missing", None):
        with pytest.raises(Refused):
            SshSignatures(signers).verify(statement("v2", DIGEST), signature)


@pytest.mark.parametrize("made", [b"", b"SSHSIG", b"SSHSIG" + bytes(171), os.urandom(177), b"\xff" * 177])
def test_what_only_looks_like_a_signature_is_refused(signatures: SshSignatures, made: bytes) -> None:
    with pytest.raises(Refused):
        signatures.verify(statement("v2", DIGEST), base64.b64encode(made).decode())


def test_without_ssh_keygen_it_can_only_be_told_later(
    signatures: SshSignatures, signature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teg.adapters.ssh_signatures.os.defpath", "/nowhere")
    with pytest.raises(Unavailable, match="ssh-keygen"):
        signatures.verify(statement("v2", DIGEST), signature)


@pytest.mark.parametrize(
    "tag", ["controller v2", "", None, 7, "x" * 100 + "!", "A" * 99, "-----BEGIN SSH SIGNATURE-----"]
)
def test_an_ordinary_tag_is_no_signature(tag: object) -> None:
    assert carried_signature({"tag": tag}) == ""


def test_nothing_is_asked_where_no_signature_is_required() -> None:
    check_signature(None, Assignment(version="v2", title="v2", source=Source.PACKAGE))
