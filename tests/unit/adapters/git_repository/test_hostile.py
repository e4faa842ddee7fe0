"""A controller repository whose author or owner on the device is hostile: nothing of it runs, all of it ends."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from teg.adapters.git_repository import GitRepository
from teg.adapters.git_repository.remote import local_path
from teg.domain.errors import Refused, Unavailable
from tests.support.repositories import commit, git

STRANGER = 12_345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """What a program of the repository makes, as whichever user it ran; it must not exist in the end."""
    (tmp_path / "aviary").mkdir()
    (tmp_path / "aviary").chmod(0o777)
    path = tmp_path / "aviary" / "canary"
    yield path
    assert not path.exists()


@pytest.fixture
def program(tmp_path: Path, canary: Path) -> Path:
    path = tmp_path / "aviary" / "program"
    path.write_text(f'#!/bin/sh\ntouch {canary}\nexec "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def repository(tmp_path: Path, local: Path) -> GitRepository:
    return GitRepository(local / ".git", local / "docker", "./Dockerfile", tmp_path / "checkouts")


def whole_life(repository: GitRepository, version: str) -> Path:
    """Everything that an update does with it."""
    if repository.commit_of(version) is None:
        repository.fetch(version)
    found = repository.commit_of(version)
    assert found is not None
    with pytest.raises(Refused):
        repository.verify_signature(version, found)
    return repository.check_out(found).context


#: Settings that make Git run a program (PROGRAM), or read a file, at one of the steps.
HOSTILE = {
    "remote.origin.uploadpack": "PROGRAM git-upload-pack",
    "uploadpack.packObjectsHook": "PROGRAM",
    "core.fsmonitor": "PROGRAM",
    "core.hooksPath": "HOOKS",
    "core.sshCommand": "PROGRAM",
    "core.gitProxy": "PROGRAM",
    "core.alternateRefsCommand": "PROGRAM",
    "core.askPass": "PROGRAM",
    "core.pager": "PROGRAM",
    "core.editor": "PROGRAM",
    "core.attributesFile": "ATTRIBUTES",
    "core.worktree": "/",
    "core.repositoryFormatVersion": "9",
    "credential.helper": "!PROGRAM",
    "gpg.program": "PROGRAM",
    "gpg.ssh.program": "PROGRAM",
    "filter.evil.smudge": "PROGRAM cat",
    "filter.evil.process": "PROGRAM",
    "filter.evil.clean": "PROGRAM cat",
    "filter.lfs.smudge": "PROGRAM cat",
    "diff.external": "PROGRAM",
    "alias.rev-parse": "!PROGRAM git rev-parse",
    "extensions.partialClone": "origin",
    "extensions.worktreeConfig": "true",
    "include.path": "INCLUDED",
    "includeIf.gitdir:/**.path": "INCLUDED",
    "protocol.ext.allow": "always",
    "remote.origin.vcs": "ext",
    "remote.origin.proxy": "http://127.0.0.1:1",
    "submodule.recurse": "true",
    "trace2.normalTarget": "CANARY",
}


def configure(path: Path, name: str, value: str, program: Path, canary: Path) -> None:
    files = program.parent
    (files / "hooks").mkdir(exist_ok=True)
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        (files / "hooks" / hook).write_bytes(program.read_bytes())
        (files / "hooks" / hook).chmod(0o755)
    (files / "attributes").write_text("* filter=evil\n")
    (files / "included").write_text(
        f'[remote "origin"]\n\tuploadpack = {program} git-upload-pack\n[core]\n\tfsmonitor = {program}\n'
    )
    (path / ".git" / "config.worktree").write_text(f"[core]\n\tfsmonitor = {program}\n")
    words = {"PROGRAM": program, "HOOKS": files / "hooks", "ATTRIBUTES": files / "attributes"}
    words |= {"INCLUDED": files / "included", "CANARY": canary}
    for word, meaning in words.items():
        value = value.replace(word, str(meaning))
    section, _, key = name.rpartition(".")
    first, dot, rest = section.partition(".")
    header = f'[{first} "{rest}"]' if dot else f"[{first}]"
    with (path / ".git" / "config").open("a") as file:
        file.write(f'{header}\n\t{key} = "{value}"\n')


@pytest.mark.parametrize("name", HOSTILE)
def test_no_setting_of_the_clone_or_its_remote_is_obeyed(
    repository: GitRepository, local: Path, remote: Path, program: Path, canary: Path, name: str
) -> None:
    commit(remote, {"docker/main.py": "2", ".gitattributes": "* filter=evil\n*.bin filter=lfs\n"}, "v2")
    for path in (local, remote):
        configure(path, name, HOSTILE[name], program, canary)
    assert (whole_life(repository, "v2") / "main.py").read_text() == "2"
    assert (whole_life(repository, "v1") / "main.py").exists()


def test_the_trap_works_where_git_is_simply_run(local: Path, remote: Path, program: Path, tmp_path: Path) -> None:
    """The tests above can fail: plain Git does run what stands there."""
    configure(local, "remote.origin.uploadpack", HOSTILE["remote.origin.uploadpack"], program, tmp_path / "x")
    subprocess.run(["git", "-C", local, "fetch", "-q"], check=True, capture_output=True)
    canary = program.parent / "canary"
    assert canary.exists()
    canary.unlink()


@as_root
@pytest.mark.parametrize("name", ["remote.origin.uploadpack", "core.fsmonitor", "include.path", "filter.evil.smudge"])
def test_nor_when_the_clone_belongs_to_another_user(
    repository: GitRepository, local: Path, remote: Path, program: Path, canary: Path, name: str, tmp_path: Path
) -> None:
    commit(remote, {"docker/main.py": "2", ".gitattributes": "* filter=evil\n"}, "v2")
    configure(local, name, HOSTILE[name], program, canary)
    for path in (local, remote):
        subprocess.run(["chown", "-R", f"{STRANGER}:{STRANGER}", str(path)], check=True)
    assert (whole_life(repository, "v2") / "main.py").read_text() == "2"


def test_without_root_a_repository_of_another_user_is_refused(
    repository: GitRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teg.adapters.git_repository.source.os.geteuid", lambda: 54_321)
    with pytest.raises(Refused, match="clone it as the gateway's user"):
        repository.commit_of("v1")


@as_root
@pytest.mark.parametrize("way", ["alternates", "objects"])
def test_the_owner_of_the_clone_cannot_have_root_read_another_repository(
    repository: GitRepository, local: Path, tmp_path: Path, way: str
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    git(secret, "init", "-q", "-b", "main")
    commit(secret, {"docker/Dockerfile": "FROM scratch\n", "docker/key": "secret"}, "v9")
    objects = local / ".git" / "objects"
    if way == "alternates":
        (objects / "info").mkdir(exist_ok=True)
        (objects / "info" / "alternates").write_text(f"{secret}/.git/objects\n")
    else:
        objects.rename(objects.with_name("old"))
        objects.symlink_to(secret / ".git" / "objects")
    (local / ".git" / "refs" / "tags" / "v9").write_text(git(secret, "rev-parse", "v9") + "\n")
    subprocess.run(["chown", "-hR", f"{STRANGER}:{STRANGER}", str(local)], check=True)
    try:
        assert repository.commit_of("v9") is None
    except Unavailable:
        return


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("entry", ["config", "packed-refs", "refs/tags/v1", "HEAD", "shallow"])
@pytest.mark.parametrize("make", [_fifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_odd_files_in_the_clone_do_not_hang_the_gateway(local: Path, entry: str, make: Callable[[Path], None]) -> None:
    path = local / ".git" / entry
    path.unlink(missing_ok=True)
    make(path)
    repository = GitRepository(
        local / ".git", local / "docker", "./Dockerfile", local.parent / "checkouts", local_deadline_s=1.0
    )
    try:
        repository.commit_of("v1")
        repository.fetch("v7")
    except (Refused, Unavailable):
        return


def test_a_git_directory_that_is_a_link_or_a_file_is_refused(tmp_path: Path, local: Path) -> None:
    for name, make in (("link", None), ("file", f"gitdir: {local}/.git\n")):
        (tmp_path / name).mkdir()
        if make is None:
            (tmp_path / name / ".git").symlink_to(local / ".git")
        else:
            (tmp_path / name / ".git").write_text(make)
        with pytest.raises(Refused, match=r"not a directory"):
            GitRepository(tmp_path / name, None, "Dockerfile", tmp_path / "checkouts").commit_of("v1")


# --- addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example/controller.git",
        "https://user:token@git.example:8443/controller.git",
        "ssh://git@git.example:2222/controller.git",
        "git@git.example:group/controller.git",
        "git.example:controller.git",
        "git://git.example/controller",
    ],
)
def test_addresses_in_the_network(url: str) -> None:
    assert local_path(url) is None


@pytest.mark.parametrize("url", ["/srv/git/controller.git", "file:///srv/git/controller.git"])
def test_addresses_on_the_device(url: str) -> None:
    assert local_path(url) == Path("/srv/git/controller.git")


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% /tmp/x",
        "fd::17",
        "transport::https://git.example/x",
        "git.example::x",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=touch /tmp/x",
        "ssh://-oProxyCommand=touch/x",
        "-oProxyCommand=x:y",
        "ftp://git.example/x",
        "https://",
        "../other",
        "https://git.example/x\n[core]",
        "/srv/\0x",
        "",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(Refused, match="not allowed"):
        local_path(url)


def test_a_password_in_the_address_is_in_no_error(repository: GitRepository, local: Path) -> None:
    git(local, "remote", "set-url", "origin", "https://pi:hunter2@127.0.0.1:1/controller.git")
    with pytest.raises(Unavailable) as caught:
        repository.fetch("v2")
    assert "hunter2" not in str(caught.value) and "127.0.0.1" in str(caught.value)
