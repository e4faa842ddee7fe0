"""Nothing of a repository is run, no hang outlives its deadline, and only a signature of the right key counts."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from teg.adapters.git_repository import GitRepository
from teg.adapters.git_repository.mirror import STALE_LOCK_S
from teg.domain.errors import Refused, Unavailable
from tests.support.repositories import commit, git

# --- what must not run ------------------------------------------------------------------------------------------


def test_hooks_do_not_run(repository: GitRepository, local: Path, remote: Path, canary: Path) -> None:
    for name in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        hook = local / ".git" / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {canary}\n")
        hook.chmod(0o755)
    git_config = local / ".git" / "config"
    git_config.write_text(git_config.read_text() + "[core]\n\tfsmonitor = .git/hooks/fsmonitor-watchman\n")
    head = commit(remote, {"docker/main.py": "2"}, "v2")
    repository.fetch("v2")
    assert repository.commit_of("v2") == head
    repository.check_out(head)


def test_the_ext_transport_is_refused_even_when_configured(
    repository: GitRepository, local: Path, canary: Path
) -> None:
    git(local, "remote", "set-url", "origin", f"ext::sh -c touch% {canary}")
    git(local, "config", "protocol.ext.allow", "always")
    with pytest.raises(Refused, match="not allowed"):
        repository.fetch("v2")


def test_submodules_are_not_read(repository: GitRepository, local: Path, tmp_path: Path, remote: Path) -> None:
    git(local, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(remote), "docker/part")
    checkout = repository.check_out(commit(local, {}))
    assert list((checkout.context / "part").iterdir()) == []


def test_a_hostile_name_reaches_git_as_a_name_only(repository: GitRepository, canary: Path) -> None:
    """The version pattern stops these much earlier; the adapter alone withstands them, too."""
    for version in (f"--upload-pack=touch {canary}", f"v1;touch {canary}", f"$(touch {canary})", "-h", "../x"):
        assert repository.commit_of(version) is None
        with pytest.raises((Unavailable, Refused)):
            repository.fetch(version)


def test_the_environment_cannot_redirect_git(
    repository: GitRepository, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", "/nowhere/objects")
    assert (
        repository.commit_of("v1")
        == subprocess.run(
            ["git", "--git-dir", str(local / ".git"), "rev-parse", "v1"],
            env={"PATH": os.environ["PATH"]},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )


# --- deadlines and left-overs -----------------------------------------------------------------------------------


def test_a_hanging_fetch_is_killed_with_its_children(tmp_path: Path, local: Path) -> None:
    pid_file = tmp_path / "pid"
    git(local, "remote", "set-url", "origin", "ssh://host.invalid/controller")
    git(local, "config", "ssh.variant", "simple")
    slow = tmp_path / "bin" / "ssh"
    slow.parent.mkdir()
    slow.write_text(f"#!/bin/sh\necho $$ > {pid_file}\nexec sleep 600\n")
    slow.chmod(0o755)
    repository = GitRepository(local / ".git", None, "Dockerfile", tmp_path / "c", fetch_deadline_s=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
        with pytest.raises(Unavailable, match="did not finish within 2 s"):
            repository.fetch("v2")
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while _runs(pid):
        assert time.monotonic() < deadline, "the child of the killed git goes on"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except FileNotFoundError:
        return False


def test_a_stale_lock_of_a_killed_git_does_not_stop_the_next_fetch(
    repository: GitRepository, remote: Path, tmp_path: Path
) -> None:
    repository.commit_of("v1")
    head = commit(remote, {"docker/main.py": "2"}, "v2")
    mirror = tmp_path / "mirror.git"
    locks = [mirror / "refs" / "tags" / "v2.lock", mirror / "packed-refs.lock"]
    for lock in locks:
        lock.write_text("")
        os.utime(lock, (time.time() - STALE_LOCK_S - 5,) * 2)
    pack = mirror / "objects" / "pack" / "tmp_pack_x"
    pack.write_text("half")
    os.utime(pack, (time.time() - 7200,) * 2)
    repository.fetch("v2")
    assert repository.commit_of("v2") == head
    assert not pack.exists()


def test_a_fresh_lock_is_respected(repository: GitRepository, remote: Path, tmp_path: Path) -> None:
    repository.commit_of("v1")
    commit(remote, {"docker/main.py": "2"}, "v2")
    lock = tmp_path / "mirror.git" / "refs" / "tags" / "v2.lock"
    lock.write_text("")
    with pytest.raises(Unavailable, match=r"v2\.lock"):
        repository.fetch("v2")
    assert lock.exists()


# --- signatures -------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(local: Path, tmp_path: Path) -> Path:
    """`local` trusts one SSH key; returns that key."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers = tmp_path / "signers"
    signers.write_text(f"operator@example.com {key.with_suffix('.pub').read_text()}")
    for name, value in (
        ("gpg.format", "ssh"),
        ("gpg.ssh.allowedSignersFile", str(signers)),
        ("user.signingKey", str(key)),
    ):
        git(local, "config", name, value)
    return key


def test_a_signed_tag_of_its_own_name_is_accepted(repository: GitRepository, local: Path, signed: Path) -> None:
    git(local, "tag", "-s", "-m", "release", "v2")
    repository.verify_signature("v2", git(local, "rev-parse", "v2^{commit}"))


def test_a_signed_commit_is_accepted_by_its_hash(repository: GitRepository, local: Path, signed: Path) -> None:
    git(local, "commit", "-q", "-S", "--allow-empty", "-m", "signed")
    head = git(local, "rev-parse", "HEAD")
    repository.verify_signature(head, head)


def test_an_unsigned_commit_is_refused(repository: GitRepository, local: Path, signed: Path) -> None:
    head = git(local, "rev-parse", "v1")
    with pytest.raises(Refused, match="no good signature"):
        repository.verify_signature(head, head)


@pytest.mark.parametrize("tag", [("v2",), ("-a", "-m", "release", "v2")])
def test_an_unsigned_tag_is_refused(repository: GitRepository, local: Path, signed: Path, tag: tuple[str, ...]) -> None:
    git(local, "tag", *tag)
    with pytest.raises(Refused, match="TEG_OTA_REQUIRE_SIGNATURE"):
        repository.verify_signature("v2", git(local, "rev-parse", "HEAD"))


def test_a_signature_by_an_unknown_key_is_refused(
    repository: GitRepository, local: Path, signed: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    git(local, "-c", f"user.signingKey={other}", "tag", "-s", "-m", "release", "v2")
    with pytest.raises(Refused, match="no good signature"):
        repository.verify_signature("v2", git(local, "rev-parse", "HEAD"))


def test_the_signature_of_another_version_does_not_serve(repository: GitRepository, local: Path, signed: Path) -> None:
    """Serving the old, signed v2 as v3 would be a downgrade nobody signed."""
    git(local, "tag", "-s", "-m", "release", "v2")
    git(local, "update-ref", "refs/tags/v3", git(local, "rev-parse", "refs/tags/v2"))
    with pytest.raises(Refused, match="v3 is not a signed tag of that name"):
        repository.verify_signature("v3", git(local, "rev-parse", "v3^{commit}"))
