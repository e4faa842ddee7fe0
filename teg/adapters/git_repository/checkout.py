"""A commit laid out on disk: bounded in what is written, and without a way out of its directory."""

import os
import re
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from teg.adapters.git_repository.mirror import Mirror
from teg.adapters.git_repository.process import disk, require
from teg.domain.errors import Refused
from teg.domain.ota.sources import Checkout

#: `ls-tree -l -z`: a submodule has no size, and becomes an empty directory.
_ENTRY = re.compile(rb"\d{6} \w+ [0-9a-f]+ +(\d+|-)\t([^\0]+)\0")
MAX_FILES = 100_000
#: Of what is committed, and of what is written: the attributes `working-tree-encoding`, `ident` and `eol` make it grow.
MAX_BYTES = 1 << 30
#: As much is written between two looks at how much it became.
CHUNK_BYTES = 8 << 20
CHUNK_FILES = 5000
MAX_IGNORE_BYTES = 64 << 10
MAX_DOCKERFILE_BYTES = 1 << 20


class Checkouts:
    """One checkout at a time in `directory`, by way of an index of our own: without hooks, filters or submodules."""

    def __init__(self, mirror: Mirror, directory: Path) -> None:
        self._mirror = mirror
        self._directory = directory

    def lay_out(self, commit: str) -> Path:
        files = self._files(commit)
        tree = self._directory / commit
        self.clear()
        with disk(f"cannot make {tree}"):
            tree.mkdir(mode=0o700, parents=True)
        environment = {"GIT_INDEX_FILE": str(self._directory / "index")}
        require(self._mirror.run("read-tree", commit, environment=environment), f"laying out commit {commit[:12]}")
        try:
            self._write(tree, files, environment)
        except Refused:
            self.clear()
            raise
        return tree

    def _write(self, tree: Path, files: Iterable[tuple[int, bytes]], environment: dict[str, str]) -> None:
        written = 0
        for names in chunks(files):
            with disk("cannot make a temporary file"), tempfile.TemporaryFile(dir=self._directory) as listed:
                listed.write(b"".join(name + b"\0" for name in names))
                listed.seek(0)
                done = self._mirror.run(
                    *(f"--work-tree={tree}", "checkout-index", "--force", "-z", "--stdin"),
                    environment=environment,
                    stdin=listed,
                    max_file_bytes=MAX_BYTES,
                )
            if done.code != -signal.SIGXFSZ:
                require(done, f"laying out commit {tree.name[:12]}")
            written += sum((tree / os.fsdecode(name)).lstat().st_size for name in names)
            if written > MAX_BYTES or done.code:
                raise Refused(f"this version becomes more than {MAX_BYTES >> 20} MiB when its attributes are applied")

    def clear(self) -> None:
        with disk("cannot remove old checkouts"):
            if self._directory.exists():
                shutil.rmtree(self._directory)

    def _files(self, commit: str) -> list[tuple[int, bytes]]:
        """(bytes, path) of each; raises Refused when they are too many or too much."""
        listed = self._mirror.run("ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        require(listed, f"reading commit {commit[:12]}")
        files = [(0 if size == b"-" else int(size), path) for size, path in _ENTRY.findall(listed.data)]
        total = sum(size for size, _ in files)
        if len(files) > MAX_FILES or total > MAX_BYTES:
            raise Refused(
                f"this version has {len(files)} files of {total >> 20} MiB, more than {MAX_FILES} or "
                f"{MAX_BYTES >> 20} MiB"
            )
        return files


def chunks(files: Iterable[tuple[int, bytes]]) -> Iterator[list[bytes]]:
    """In their order; a large file makes a chunk of its own."""
    names: list[bytes] = []
    held = 0
    for size, name in files:
        if names and (held + size > CHUNK_BYTES or len(names) >= CHUNK_FILES):
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    if names:
        yield names


def build_context(tree: Path, relative: Path, dockerfile: str) -> Checkout:
    """What to build of the checkout `tree`; raises Refused when it is not there or leads out of the tree."""
    wanted = tree / relative
    if not wanted.is_dir() and (tree / dockerfile).is_file():
        wanted = tree  # the reference's guide promises the repository's root, its code uses docker/
    context = _inside(tree, wanted, "build context")
    file = _inside(tree, context / dockerfile, "Dockerfile")
    if not file.is_file():
        raise Refused(
            f"this version has no {relative / dockerfile}: "
            "see TEG_CONTROLLER_DOCKERCONTEXT_PATH and TEG_CONTROLLER_DOCKERFILE_PATH"
        )
    _check_links(tree, context)
    _check_text(tree, context / ".dockerignore", MAX_IGNORE_BYTES)
    _check_text(tree, file, MAX_DOCKERFILE_BYTES)
    return Checkout(context, os.path.relpath(file, context))


def _inside(tree: Path, path: Path, name: str) -> Path:
    found = Path(os.path.realpath(path))
    if not found.is_relative_to(os.path.realpath(tree)):
        raise Refused(f"the {name} of this version leads out of the repository")
    return found


def _check_links(tree: Path, context: Path) -> None:
    """Every one in the context, wherever it is used."""
    for where, directories, files in os.walk(context):
        for name in (*directories, *files):
            path = Path(where, name)
            if path.is_symlink():
                _inside(tree, path, f"link {path.relative_to(context)}")


def _check_text(tree: Path, path: Path, limit_bytes: int) -> None:
    if not os.path.lexists(path):
        return
    found = _inside(tree, path, path.name).stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > limit_bytes:
        raise Refused(f"the {path.name} of this version is not a file of at most {limit_bytes >> 10} KiB")
