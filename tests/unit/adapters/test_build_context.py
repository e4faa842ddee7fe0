"""What of a build context reaches the engine, and what patterns and odd files cannot do."""

import os
import tarfile
import time
from pathlib import Path

import pytest

from teg.adapters.docker_engine import build_context
from teg.adapters.docker_engine.build_context import DOCKERFILE, is_excluded, packed, parse_rules
from teg.domain.errors import Refused


def sent(context: Path, dockerfile: str = "Dockerfile") -> list[str]:
    with packed(context, dockerfile) as archive, tarfile.open(fileobj=archive) as tar:
        return sorted(tar.getnames())


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    for name in ("Dockerfile", "main.py", "data/large.bin", "data/keep.bin", ".git/config", "deep/er/x.pyc"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return path


def test_everything_is_sent_without_patterns(context: Path) -> None:
    assert sent(context) == sorted(
        [
            *(DOCKERFILE, "Dockerfile", "main.py", "data", "data/large.bin", "data/keep.bin", ".git", ".git/config"),
            *("deep", "deep/er", "deep/er/x.pyc"),
        ]
    )


def test_patterns_leave_things_out(context: Path) -> None:
    (context / ".dockerignore").write_text("# no sources\n.git\n**/*.pyc\ndata/*\n!data/keep.bin\nDockerfile\n")
    names = [".dockerignore", DOCKERFILE, "data", "data/keep.bin", "deep", "deep/er", "main.py"]
    assert sent(context) == sorted(names)


def test_the_dockerfile_may_lie_beside_the_context(context: Path) -> None:
    (context.parent / "Other").write_text("FROM scratch\n")
    with packed(context, "../Other") as archive, tarfile.open(fileobj=archive) as tar:
        file = tar.extractfile(DOCKERFILE)
        assert file is not None and file.read() == b"FROM scratch\n"


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("a", "a", True),
        ("a", "a/b/c", True),
        ("a", "b/a", False),
        ("/a/", "a", True),
        ("./a", "a", True),
        ("*", "a", True),
        ("*", "a/b", True),
        ("**", "a/b", True),
        ("*/b", "a/b", True),
        ("*/b", "a/c/b", False),
        ("**/b", "b", True),
        ("**/b", "a/c/b", True),
        ("**/b/**/d", "a/b/c/d", True),
        ("**/b/**/d", "a/b/d", True),
        ("**/b/**/d", "a/d/b", False),
        ("a/**/b", "a/x/y/b", True),
        ("a/**", "a/x", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[^a]", "b", True),
        ("[^a]", "a", False),
        ("*.md", "README.md", True),
        ("*.md", "docs/README.md", False),
        ("**/*.go", "x/y/z.go", True),
        ("**.go", "x/y/z.go", True),
        (".", "a", False),
        ("", "a", False),
    ],
)
def test_what_a_pattern_means(pattern: str, path: str, excluded: bool) -> None:
    assert is_excluded(path, parse_rules(pattern)) is excluded


def test_the_last_pattern_decides() -> None:
    assert not is_excluded("a/b", parse_rules("a\n!a/b"))
    assert is_excluded("a/b", parse_rules("a\n!a/b\na/b"))


@pytest.mark.parametrize("pattern", ["*a" * 120 + "b", "**/" * 80 + "b", "[a-z]*" * 40 + "!", "**/*a*a*a*a*a*a*a/**/b"])
def test_patterns_made_to_take_for_ever_do_not(pattern: str) -> None:
    """Processor time, not the clock: with backtracking each of these would take longer than the universe has."""
    rules, path = parse_rules(pattern), "/".join(["a" * 250] * 15)
    before = time.thread_time()
    assert not is_excluded(path, rules)
    assert time.thread_time() - before < 5


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile"])
@pytest.mark.parametrize("target", ["/dev/zero", "/dev", "fifo"])
def test_texts_that_never_end_are_refused(context: Path, name: str, target: str) -> None:
    os.mkfifo(context / "fifo")
    (context / name).unlink(missing_ok=True)
    (context / name).symlink_to(target)
    with pytest.raises(Refused, match=name):
        sent(context)


def test_a_fifo_or_socket_in_the_context_is_refused_and_a_link_is_sent_as_one(context: Path) -> None:
    (context / "link").symlink_to("/dev/zero")
    with packed(context, "Dockerfile") as archive, tarfile.open(fileobj=archive) as tar:
        assert tar.getmember("link").issym()
    os.mkfifo(context / "pipe")
    with pytest.raises(Refused, match="pipe"):
        sent(context)


def test_sizes_and_counts_are_bounded(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (context / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Refused, match="MiB"):
        sent(context)
    (context / "sparse").unlink()
    monkeypatch.setattr(build_context, "MAX_FILES", 5)
    with pytest.raises(Refused, match="more than 5 files"):
        sent(context)


@pytest.mark.parametrize("text", ["x\n" * 501, "x" * 257, "z" * (2 << 20)])
def test_too_much_dockerignore_is_refused(context: Path, text: str) -> None:
    (context / ".dockerignore").write_text(text)
    with pytest.raises(Refused, match="dockerignore"):
        sent(context)
