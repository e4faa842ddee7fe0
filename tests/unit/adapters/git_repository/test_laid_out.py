"""What is laid out of a repository whose author is hostile: bounded, and without a way out."""

import subprocess
from pathlib import Path

import pytest

from teg.adapters.git_repository import GitRepository, process
from teg.adapters.git_repository import checkout as checkout_module
from teg.domain.errors import Refused
from tests.support.repositories import commit, git


@pytest.fixture
def repository(tmp_path: Path, local: Path) -> GitRepository:
    return GitRepository(local / ".git", local / "docker", "./Dockerfile", tmp_path / "checkouts")


@pytest.mark.parametrize("name", [".dockerignore", "docker/.dockerignore", "docker/data", "docker/deep/er/link"])
@pytest.mark.parametrize("target", ["/dev/zero", "/etc/shadow", "../../../../../../etc/passwd", "/proc/self/fd/0"])
def test_a_link_out_of_the_tree_is_refused_wherever_it_is(
    repository: GitRepository, local: Path, name: str, target: str
) -> None:
    path = local / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    head = commit(local, {})
    if not name.startswith("docker/"):
        assert (repository.check_out(head).context / "Dockerfile").exists()  # it is not in the context
        return
    with pytest.raises(Refused, match="leads out of the repository"):
        repository.check_out(head)


def test_a_chain_of_links_that_ends_outside_is_refused(repository: GitRepository, local: Path) -> None:
    (local / "docker" / "a").symlink_to("b/../../..")
    (local / "docker" / "b").symlink_to("..")
    with pytest.raises(Refused, match="leads out of the repository"):
        repository.check_out(commit(local, {}))


def test_links_within_the_tree_and_circles_are_fine(repository: GitRepository, local: Path) -> None:
    (local / "docker" / "shared").symlink_to("../shared")
    (local / "docker" / "circle").symlink_to("circle")
    head = commit(local, {"shared/lib.py": "x"})
    assert (repository.check_out(head).context / "shared" / "lib.py").read_text() == "x"


def test_a_dockerignore_that_is_a_directory_or_huge_is_refused(repository: GitRepository, local: Path) -> None:
    with pytest.raises(Refused, match="dockerignore"):
        repository.check_out(commit(local, {"docker/.dockerignore/x": "x"}))
    git(local, "rm", "-q", "-r", "docker/.dockerignore")
    with pytest.raises(Refused, match="dockerignore"):
        repository.check_out(commit(local, {"docker/.dockerignore": "x\n" * 40_000}))


def test_a_tree_of_too_many_or_too_large_files_is_refused_before_it_is_written(
    repository: GitRepository, local: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    head = commit(local, {f"docker/{number}": "x" for number in range(12)})
    monkeypatch.setattr(checkout_module, "MAX_FILES", 10)
    with pytest.raises(Refused, match="more than 10"):
        repository.check_out(head)
    monkeypatch.setattr(checkout_module, "MAX_FILES", 100)
    monkeypatch.setattr(checkout_module, "MAX_BYTES", 1000)
    with pytest.raises(Refused, match="more than 100"):
        repository.check_out(commit(local, {"docker/large": "x" * 1001}))
    assert not (tmp_path / "checkouts").exists()


def commit_with_attributes(local: Path, attributes: str, files: dict[str, str]) -> str:
    """The files as they are: `git add` would undo in them what the attributes do."""
    commit(local, files)
    (local / "docker" / ".gitattributes").write_text(f"{attributes}\n")
    git(local, "add", "docker/.gitattributes")
    git(local, "commit", "-q", "-m", "attributes")
    return git(local, "rev-parse", "HEAD")


#: Attributes by which fewer than 10,000 bytes become more than 20,000: (attributes, content).
GROWING = {
    "an encoding": ("text working-tree-encoding=UTF-32LE", "x" * 9000),
    "line ends": ("text text eol=crlf", "\n" * 9000),
    "an identity": ("text ident", "$Id$\n" * 1800),
}
GROWN_BYTES = {"an encoding": 36_000, "line ends": 18_000, "an identity": 1800 * 48}


@pytest.mark.parametrize("what", GROWING)
def test_what_is_written_is_bounded_not_only_what_is_committed(
    repository: GitRepository, local: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    attributes, content = GROWING[what]
    head = commit_with_attributes(local, attributes, {"docker/text": content})
    laid_out = repository.check_out(head).context / "text"
    assert laid_out.stat().st_size == GROWN_BYTES[what], "the attribute works, so the bound is what is tried"
    monkeypatch.setattr(checkout_module, "MAX_BYTES", 15_000)
    with pytest.raises(Refused, match="attributes are applied"):
        repository.check_out(head)
    assert not (tmp_path / "checkouts").exists()


def test_growth_is_met_before_the_disk_is_full(
    repository: GitRepository, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many files that grow only those are written that fit, and those of the chunk that did not."""
    files = {f"docker/{number:03}": "x" * 1000 for number in range(100)}
    head = commit_with_attributes(local, "[0-9]* working-tree-encoding=UTF-32LE", files)
    monkeypatch.setattr(checkout_module, "MAX_BYTES", 120_000)
    monkeypatch.setattr(checkout_module, "CHUNK_BYTES", 5000)
    seen: list[int] = []
    clear = checkout_module.Checkouts.clear

    def noted(self: checkout_module.Checkouts) -> None:
        seen.append(sum(path.stat().st_size for path in self._directory.rglob("docker/*")))
        clear(self)

    monkeypatch.setattr(checkout_module.Checkouts, "clear", noted)
    with pytest.raises(Refused, match="attributes are applied"):
        repository.check_out(head)
    assert 120_000 < seen[-1] <= 120_000 + 5 * 4000


def test_any_name_is_laid_out(repository: GitRepository, local: Path) -> None:
    names = ("new\nline", 'quote"', "tab\t", "ümlaut", ":(glob)*", "-rf", "back\\slash")
    head = commit(local, {f"docker/{name}": name for name in names})
    context = repository.check_out(head).context
    assert {path.name for path in context.iterdir()} >= set(names)


def test_one_blob_many_times_counts_each_time(local: Path) -> None:
    """A tree of trees of one blob: kilobytes in the repository, terabytes on the disk."""
    blob = subprocess.run(
        ["git", "-C", str(local), "hash-object", "-w", "--stdin"],
        input=b"x" * 2_000_000,
        capture_output=True,
        check=True,
    ).stdout.decode().strip()  # fmt: skip
    listing = "".join(f"100644 blob {blob}\t{number}\n" for number in range(100))
    for _ in range(3):
        tree = subprocess.run(
            ["git", "-C", str(local), "mktree"], input=listing, capture_output=True, check=True, text=True
        ).stdout.strip()
        listing = "".join(f"040000 tree {tree}\t{number}\n" for number in range(100))
    head = git(local, "commit-tree", "-m", "bomb", tree)
    git(local, "tag", "bomb", head)
    repository = GitRepository(
        local / ".git", local / "docker", "./Dockerfile", local.parent / "checkouts", local_deadline_s=60.0
    )
    found = repository.commit_of("bomb")
    assert found is not None
    with pytest.raises(Refused, match=r"too many files|more than"):
        repository.check_out(found)


def test_a_tag_of_megabytes_is_not_held_in_memory(
    repository: GitRepository, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(local, "tag", "-a", "-m", "x" * 60_000, "v5")
    monkeypatch.setattr(process, "MAX_OUTPUT_BYTES", 50_000)
    with pytest.raises(Refused, match="too large a tag"):
        repository.verify_signature("v5", git(local, "rev-parse", "v5^{commit}"))
