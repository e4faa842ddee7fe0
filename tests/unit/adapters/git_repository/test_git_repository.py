"""The Git adapter on real repositories: what is asked for is what is built."""

import os
import subprocess
from pathlib import Path

import pytest

from teg.adapters.git_repository import GitRepository
from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.sources import UnknownVersion
from tests.support.repositories import commit, git


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


def test_an_unreachable_remote_is_transient(repository: GitRepository, remote: Path) -> None:
    remote.rename(remote.with_name("gone"))
    with pytest.raises(Unavailable, match="fetching v2 failed"):
        repository.fetch("v2")


def test_without_a_remote_a_missing_version_is_refused(repository: GitRepository, local: Path) -> None:
    git(local, "remote", "remove", "origin")
    with pytest.raises(UnknownVersion, match="no remote"):
        repository.fetch("v2")


def test_a_missing_repository_is_transient_not_a_missing_version(tmp_path: Path) -> None:
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
