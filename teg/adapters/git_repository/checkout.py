"""A commit laid out on disk: bounded before it is written, and without a way out of its directory."""

import os
import re
import shutil
import stat
from pathlib import Path

from teg.adapters.git_repository.mirror import Mirror
from teg.adapters.git_repository.process import disk, require
from teg.domain.errors import Refused
from teg.domain.ota.sources import Checkout

_SIZE = re.compile(r"^\d{6} \w+ [0-9a-f]+ +(\d+)\t", re.MULTILINE)
MAX_FILES = 100_000
MAX_BYTES = 1 << 30
MAX_IGNORE_BYTES = 64 << 10
MAX_DOCKERFILE_BYTES = 1 << 20


class Checkouts:
    """One checkout at a time in `directory`, by way of an index of our own: without hooks, filters or submodules."""

    def __init__(self, mirror: Mirror, directory: Path) -> None:
        self._mirror = mirror
        self._directory = directory

    def lay_out(self, commit: str) -> Path:
        self._check_size(commit)
        tree = self._directory / commit
        self.clear()
        with disk(f"cannot make {tree}"):
            tree.mkdir(mode=0o700, parents=True)
        environment = {"GIT_INDEX_FILE": str(self._directory / "index")}
        for arguments in (("read-tree", commit), ("checkout-index", "--all", "--force")):
            done = self._mirror.run(f"--work-tree={tree}", *arguments, environment=environment)
            require(done, f"laying out commit {commit[:12]}")
        return tree

    def clear(self) -> None:
        with disk("cannot remove old checkouts"):
            if self._directory.exists():
                shutil.rmtree(self._directory)

    def _check_size(self, commit: str) -> None:
        listed = self._mirror.run("ls-tree", "-r", "-l", "--full-tree", commit)
        require(listed, f"reading commit {commit[:12]}")
        sizes = [int(size) for size in _SIZE.findall(listed.output)]
        if len(sizes) > MAX_FILES or sum(sizes) > MAX_BYTES:
            raise Refused(
                f"this version has {len(sizes)} files of {sum(sizes) >> 20} MiB, more than {MAX_FILES} or "
                f"{MAX_BYTES >> 20} MiB"
            )


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
