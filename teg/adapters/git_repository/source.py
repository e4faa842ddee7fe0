"""Reading a repository that belongs to somebody else: its objects and refs are data, its configuration is never obeyed.

Git runs here as the repository's owner, so that it can read what the owner can and nothing more, and on a directory of
ours that only points to the other one's objects and refs. From its configuration two values are read, as text.
"""

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from teg.adapters.git_repository.process import Finished, Git, User, disk, last_lines, require
from teg.domain.errors import Refused, Unavailable

MAX_CONFIG_BYTES = 1 << 20
MAX_OBJECTS = 200_000
_REMOTE = re.compile(r"remote\.(.+)\.url\n(.*)", re.DOTALL)
_OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)


class SourceRepository:
    """Open for the length of `opened`; every call raises Unavailable for what cannot be read."""

    def __init__(self, git: Git, path: Path, descriptor: int, user: User | None, shadow: Path) -> None:
        self._git = git
        self._path = path
        self._descriptor = descriptor
        self._user = user
        self._shadow = shadow

    def find(self, name: str) -> str | None:
        """The id of the object that `name` (a full ref or hash) means, a tag object if it is one."""
        found = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", name)
        if found.code not in (0, 1):
            raise Unavailable(f"the controller repository {self._path} cannot be read: {last_lines(found)}")
        object_id = found.output.strip()
        return object_id if found.code == 0 and _OBJECT.fullmatch(object_id) else None

    def has(self, object_id: str) -> bool:
        return self._run("cat-file", "-e", object_id + "^{commit}").code == 0

    def write_pack(self, object_id: str, pack: IO[bytes]) -> None:
        """A commit's files (and the tag object) without its history, as a pack."""
        with disk("cannot make a temporary file"), tempfile.TemporaryFile(dir=self._shadow) as names:
            listed = self._run("rev-list", "--objects", "--no-object-names", "--no-walk", object_id, stdout=names)
            require(listed, f"reading {object_id[:12]} from {self._path}")
            if names.tell() > MAX_OBJECTS * 65:
                raise Refused(f"this version has more than {MAX_OBJECTS} files")
            names.seek(0)
            done = self._run("pack-objects", "--quiet", "--window=0", "--stdout", stdin=names, stdout=pack)
            require(done, f"reading {object_id[:12]} from {self._path}")

    def remotes(self) -> dict[str, str]:
        """Name → URL, as they stand in the file itself."""
        listed = self._configured("--null", "--get-regexp", r"^remote\..*\.url$")
        found = [_REMOTE.fullmatch(entry) for entry in listed.split("\0") if entry]
        return {match[1]: match[2] for match in found if match is not None}

    def object_format(self) -> str:
        return "sha256" if self._configured("--get", "extensions.objectformat").strip() == "sha256" else "sha1"

    def _configured(self, *arguments: str) -> str:
        with _plain_file(self._descriptor, "config", MAX_CONFIG_BYTES) as file:
            if file is None:
                return ""
            return self._git.run("config", "--file", "-", "--no-includes", *arguments, stdin=file).output

    def _run(self, *arguments: str, stdin: IO[bytes] | int = -3, stdout: IO[bytes] | int = -1) -> Finished:
        inside = f"/proc/self/fd/{self._descriptor}"
        environment = {"GIT_DIR": str(self._shadow), "GIT_OBJECT_DIRECTORY": f"{inside}/objects"}
        return self._git.run(
            *arguments,
            environment=environment,
            user=self._user,
            descriptors=(self._descriptor,),
            stdin=stdin,
            stdout=stdout,
        )


@contextmanager
def opened(git: Git, path: Path) -> Iterator[SourceRepository]:
    """The repository at `path`: a `.git` directory, a bare repository, or the directory that holds a `.git`.

    Raises:
        Refused: it belongs to another user, and we are not root, who could become that one.
        Unavailable: there is none.
    """
    descriptor = _open_directory(path)
    try:
        with _shadow(descriptor) as shadow:
            source = SourceRepository(git, path, descriptor, _user(descriptor, path), shadow)
            if source.object_format() == "sha256":
                _write(shadow / "config", "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectformat = sha256\n")
            yield source
    finally:
        os.close(descriptor)


def _open_directory(path: Path) -> int:
    try:
        outer = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"the controller repository {path} cannot be read: {error}") from error
    try:
        return os.open(".git", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
    except FileNotFoundError:
        return os.dup(outer)
    except OSError as error:
        raise Refused(f"{path}/.git is not a directory: name the repository's own .git directory") from error
    finally:
        os.close(outer)


def _user(descriptor: int, path: Path) -> User | None:
    owner = os.fstat(descriptor)
    if owner.st_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise Refused(
            f"the repository {path} belongs to user {owner.st_uid}, the gateway runs as user {os.geteuid()}: "
            "clone it as the gateway's user"
        )
    return User(owner.st_uid, owner.st_gid)


@contextmanager
def _shadow(descriptor: int) -> Iterator[Path]:
    """A Git directory of ours without any configuration, whose refs are the other repository's."""
    with disk("cannot make a temporary directory"), tempfile.TemporaryDirectory(prefix="teg-git-") as name:
        shadow = Path(name)
        shadow.chmod(0o755)
        _write(shadow / "HEAD", "ref: refs/heads/none\n")
        _write(shadow / "config", "[core]\nrepositoryformatversion = 0\n")
        for entry in ("refs", "packed-refs"):
            (shadow / entry).symlink_to(f"/proc/self/fd/{descriptor}/{entry}")
        yield shadow


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


@contextmanager
def _plain_file(directory: int, name: str, limit_bytes: int) -> Iterator[IO[bytes] | None]:
    """A file that was opened without following a link or waiting for a FIFO; None where there is no such one."""
    descriptor = None
    with suppress(OSError):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=directory)
    if descriptor is None:
        yield None
        return
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        yield file if stat.S_ISREG(found.st_mode) and found.st_size <= limit_bytes else None
