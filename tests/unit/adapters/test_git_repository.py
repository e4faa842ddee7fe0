"""The Git adapter on real repositories: what is asked for is what is built, and nothing of the repository is run."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.git_repository import GitRepository
from teg.adapters.git_repository.mirror import STALE_LOCK_S
from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.sources import UnknownVersion

AUTHOR = ("-c", "user.name=Operator", "-c", "user.email=operator@example.com")


def git(where: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(where), *AUTHOR, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(where: Path, files: dict[str, str], tag: str = "") -> str:
    for name, text in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text)
    git(where, "add", "-A")
    git(where, "commit", "-q", "--allow-empty", "-m", "change")
    if tag:
        git(where, "tag", tag)
    return git(where, "rev-parse", "HEAD")


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """The operator's repository, with v1 in it."""
    path = tmp_path / "remote"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    commit(path, {"docker/Dockerfile": "FROM scratch\n", "docker/main.py": "print('v1')\n"}, "v1")
    return path


@pytest.fixture
def local(tmp_path: Path, remote: Path) -> Path:
    """The clone on the device."""
    path = tmp_path / "local"
    git(tmp_path, "clone", "-q", str(remote), str(path))
    return path


@pytest.fixture
def repository(tmp_path: Path, local: Path) -> GitRepository:
    return GitRepository(
        local / ".git", local / "docker", "./Dockerfile", tmp_path / "checkouts", signers=tmp_path / "signers"
    )


@pytest.fixture(autouse=True)
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that hostile content tries to make; it must not exist in the end."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def test_a_local_tag_or_hash_needs_no_remote(repository: GitRepository, local: Path, remote: Path) -> None:
    head = git(local, "rev-parse", "v1")
    remote.rename(remote.with_name("gone"))
    assert repository.commit_of("v1") == head
    assert repository.commit_of(head) == head
    assert repository.commit_of("v2") is None
    assert repository.commit_of("a" * 40) is None


def test_branches_and_other_refs_are_no_versions(repository: GitRepository, local: Path) -> None:
    assert repository.commit_of("main") is None
    assert repository.commit_of("HEAD") is None
    git(local, "branch", "v7")
    assert repository.commit_of("v7") is None


def test_an_annotated_tag_means_its_commit(repository: GitRepository, local: Path) -> None:
    git(local, "tag", "-a", "-m", "release", "v1-annotated")
    assert repository.commit_of("v1-annotated") == git(local, "rev-parse", "HEAD")


def test_a_new_tag_is_fetched_from_the_configured_remote(repository: GitRepository, remote: Path) -> None:
    head = commit(remote, {"docker/main.py": "print('v2')\n"}, "v2")
    assert repository.commit_of("v2") is None
    repository.fetch("v2")
    assert repository.commit_of("v2") == head


def test_a_new_commit_is_fetched_by_its_hash(repository: GitRepository, remote: Path) -> None:
    head = commit(remote, {"docker/main.py": "print('v2')\n"})
    repository.fetch(head)
    assert repository.commit_of(head) == head


def test_a_commit_the_server_does_not_hand_out_alone_comes_with_its_branch(
    repository: GitRepository, remote: Path
) -> None:
    wanted = commit(remote, {"docker/main.py": "print('v2')\n"})
    commit(remote, {"docker/main.py": "print('v3')\n"})
    git(remote, "config", "uploadpack.allowAnySHA1InWant", "false")
    git(remote, "config", "protocol.version", "0")
    repository.fetch(wanted)
    assert repository.commit_of(wanted) == wanted


def test_a_version_nobody_knows_is_refused_for_good(repository: GitRepository) -> None:
    with pytest.raises(UnknownVersion, match="v9 is no tag"):
        repository.fetch("v9")


def test_an_unreachable_remote_is_weather(repository: GitRepository, remote: Path) -> None:
    remote.rename(remote.with_name("gone"))
    with pytest.raises(Unavailable, match="fetching v2 failed"):
        repository.fetch("v2")


def test_without_a_remote_a_missing_version_is_refused(repository: GitRepository, local: Path) -> None:
    git(local, "remote", "remove", "origin")
    with pytest.raises(UnknownVersion, match="no remote"):
        repository.fetch("v2")


def test_a_missing_repository_is_weather_not_a_missing_version(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "nothing", None, "Dockerfile", tmp_path / "checkouts")
    with pytest.raises(Unavailable, match="cannot be read"):
        repository.commit_of("v1")


def test_the_projects_directory_serves_as_well_as_its_dot_git(tmp_path: Path, local: Path) -> None:
    repository = GitRepository(local, local / "docker", "Dockerfile", tmp_path / "checkouts")
    assert repository.commit_of("v1") == git(local, "rev-parse", "v1")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_repository_of_another_user_can_be_read_by_root(repository: GitRepository, local: Path, remote: Path) -> None:
    """Git itself refuses that as dubious; devices have it so: the clone belongs to `pi`, the gateway runs as root."""
    head = git(local, "rev-parse", "v1")
    subprocess.run(["chown", "-R", "12345:12345", str(local)], check=True)
    assert repository.commit_of("v1") == head
    assert repository.check_out(head).context.is_dir()


def test_a_moved_tag_does_not_follow_by_itself(repository: GitRepository, remote: Path) -> None:
    before = repository.commit_of("v1")
    commit(remote, {"docker/main.py": "print('other')\n"})
    git(remote, "tag", "-f", "v1")
    with pytest.raises(Unavailable):
        repository.fetch("v1")
    assert repository.commit_of("v1") == before


# --- what is laid out -------------------------------------------------------------------------------------------


def test_a_checkout_has_exactly_the_files_of_the_commit(repository: GitRepository, local: Path) -> None:
    (local / "docker" / "main.py").write_text("print('edited by hand')\n")
    (local / "docker" / "left-over").write_text("x")
    git(local, "add", "docker/main.py")
    checkout = repository.check_out(git(local, "rev-parse", "v1"))
    assert sorted(path.name for path in checkout.context.iterdir()) == ["Dockerfile", "main.py"]
    assert (checkout.context / "main.py").read_text() == "print('v1')\n"
    assert checkout.dockerfile == "Dockerfile"
    assert "edited by hand" in (local / "docker" / "main.py").read_text()
    assert git(local, "status", "--porcelain") == "M  docker/main.py\n?? docker/left-over".strip()


def test_files_marked_export_ignore_are_there_as_in_a_clone(repository: GitRepository, local: Path) -> None:
    head = commit(local, {".gitattributes": "docker/main.py export-ignore\n"})
    assert (repository.check_out(head).context / "main.py").exists()


def test_only_one_checkout_is_kept(repository: GitRepository, local: Path, tmp_path: Path) -> None:
    first = repository.check_out(git(local, "rev-parse", "v1"))
    repository.check_out(commit(local, {"docker/main.py": "2"}))
    assert not first.context.exists()
    repository.clear()
    assert not (tmp_path / "checkouts").exists()


def test_the_repositorys_root_serves_when_there_is_no_docker_directory(tmp_path: Path, local: Path) -> None:
    git(local, "rm", "-q", "-r", "docker")
    head = commit(local, {"Dockerfile": "FROM scratch\n"})
    checkout = GitRepository(local / ".git", local / "docker", "./Dockerfile", tmp_path / "c").check_out(head)
    assert checkout.context == tmp_path / "c" / head


def test_context_and_dockerfile_settings_are_honoured(tmp_path: Path, local: Path) -> None:
    head = commit(local, {"images/pi/build/Other.dockerfile": "FROM scratch\n"})
    repository = GitRepository(local / ".git", local / "images" / "pi", "build/Other.dockerfile", tmp_path / "c")
    checkout = repository.check_out(head)
    assert checkout.context == tmp_path / "c" / head / "images" / "pi"
    assert checkout.dockerfile == "build/Other.dockerfile"


def test_a_bare_repository_serves(tmp_path: Path, remote: Path) -> None:
    bare = tmp_path / "controller.git"
    git(tmp_path, "clone", "-q", "--bare", str(remote), str(bare))
    repository = GitRepository(bare, None, "Dockerfile", tmp_path / "c")
    commit_id = repository.commit_of("v1")
    assert commit_id
    assert (repository.check_out(commit_id).context / "main.py").exists()


def test_a_version_without_a_dockerfile_is_refused(repository: GitRepository, local: Path) -> None:
    git(local, "rm", "-q", "docker/Dockerfile")
    with pytest.raises(Refused, match="has no docker/Dockerfile"):
        repository.check_out(commit(local, {"docker/other": "x"}))


def test_a_context_outside_of_the_repository_is_refused(tmp_path: Path, local: Path) -> None:
    repository = GitRepository(local / ".git", tmp_path / "elsewhere", "Dockerfile", tmp_path / "c")
    with pytest.raises(Refused, match="not inside the repository"):
        repository.check_out(git(local, "rev-parse", "v1"))


@pytest.mark.parametrize("name", ["docker", "docker/Dockerfile"])
def test_a_symbolic_link_out_of_the_repository_is_refused(
    repository: GitRepository, local: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "Dockerfile").write_text("FROM scratch\n")
    git(local, "rm", "-q", "-r", name)
    link = local / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside if name == "docker" else outside / "Dockerfile")
    with pytest.raises(Refused, match="leads out of the repository"):
        repository.check_out(commit(local, {}))


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
