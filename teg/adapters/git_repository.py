"""The controller's local Git repository: resolve a version, fetch it, check its signature, lay out its files.

The server chooses versions, so nothing of the repository is trusted to run: no hooks, no `ext::` transport, no
submodules, no prompt, and only the remote of the local configuration. The working tree and the index of the repository
are never touched; a commit is laid out in a fresh directory of ours. Options: git(1), githooks(5), gitattributes(5).
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import is_commit_hash
from teg.domain.ota.sources import Checkout, UnknownVersion

FETCH_DEADLINE_S = 600.0
LOCAL_DEADLINE_S = 120.0
#: A lock of Git older than this was left behind by a killed one: they are held for moments.
STALE_LOCK_S = 60.0
STALE_PACK_S = 3600.0

#: Run through env(1): the environment is inherited without what could redirect Git, and with what keeps it quiet.
_REDIRECTING = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_CONFIG_PARAMETERS",
    "GIT_PROTOCOL_FROM_USER",
)
_QUIET = ("LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true", "SSH_ASKPASS=true")
_ENVIRONMENT = ("env", *(f"--unset={name}" for name in _REDIRECTING), *_QUIET)
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
_CONFIGURATION = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "protocol.file.allow=user",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=no",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "credential.interactive=never",
    "http.lowSpeedLimit=100",
    "http.lowSpeedTime=60",
)


@dataclass(frozen=True, slots=True)
class _Finished:
    code: int
    output: str
    complaint: str


class GitRepository:
    """`ota.sources.Repository` over the `.git` directory (or bare repository) at `git_path`."""

    def __init__(
        self,
        git_path: Path,
        context: Path | None,
        dockerfile: str,
        checkouts: Path,
        fetch_deadline_s: float = FETCH_DEADLINE_S,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        inside = git_path / ".git"
        self._git_path = inside if inside.exists() else git_path
        self._context = context
        self._dockerfile = dockerfile
        self._checkouts = checkouts
        self._fetch_deadline_s = fetch_deadline_s
        self._stopping = stopping

    def commit_of(self, version: str) -> str | None:
        name = version if is_commit_hash(version) else f"refs/tags/{version}"
        found = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}")
        self._require_repository(found)
        return found.output.strip() or None if found.code == 0 else None

    def fetch(self, version: str) -> None:
        remote = self._remote(version)
        self._remove_stale_files()
        if is_commit_hash(version):
            self._fetch_commit(remote, version)
            return
        tag = f"refs/tags/{version}"
        done = self._fetch(remote, f"{tag}:{tag}")
        if "find remote ref" in done.complaint:
            raise UnknownVersion(
                f"version {version} is no tag of the controller repository: push the tag, or assign another version"
            )
        _require(done, f"fetching {version}")

    def ask_remote(self, deadline_s: float) -> str:
        """The name of the remote, once it has answered; raises Unavailable when it does not, Refused when none is."""
        try:
            remote = self._remote("of any name")
        except UnknownVersion as reason:
            raise Refused("the repository has no remote to fetch versions from") from reason
        done = self._git("ls-remote", "--quiet", "--end-of-options", remote, "HEAD", deadline_s=deadline_s)
        _require(done, f"asking the remote '{remote}'")
        return remote

    def verify_signature(self, version: str, commit: str) -> None:
        if is_commit_hash(version):
            checked = self._git("verify-commit", "--end-of-options", commit)
        else:
            self._require_own_name(version)
            checked = self._git("verify-tag", "--end-of-options", f"refs/tags/{version}")
        if checked.code != 0:
            raise Refused(
                f"version {version} has no good signature and TEG_OTA_REQUIRE_SIGNATURE is on: {_last(checked)}"
            )

    def check_out(self, commit: str) -> Checkout:
        """Lay the commit out in a fresh directory, by way of an index of our own: without hooks or submodules."""
        tree = self._checkouts / commit
        self.clear()
        with suppress_disk(f"cannot make {tree}"):
            tree.mkdir(mode=0o700, parents=True)
        index = self._checkouts / "index"
        for arguments in (("read-tree", commit), ("checkout-index", "--all", "--force")):
            done = self._git(f"--work-tree={tree}", *arguments, environment=[f"GIT_INDEX_FILE={index}"])
            _require(done, f"laying out commit {commit[:12]}")
        return self._build_context(tree)

    def clear(self) -> None:
        with suppress_disk("cannot remove old checkouts"):
            if self._checkouts.exists():
                shutil.rmtree(self._checkouts)

    # --- fetching ------------------------------------------------------------------------------------------

    def _remote(self, version: str) -> str:
        remotes = self._git("remote").output.split()
        if not remotes:
            raise UnknownVersion(
                f"version {version} is not in the controller repository, which has no remote to fetch it from"
            )
        return "origin" if "origin" in remotes else remotes[0]

    def _fetch_commit(self, remote: str, commit: str) -> None:
        """Directly where the server allows it, else with all branches; whether it is there is asked afterwards."""
        if self._fetch(remote, commit).code != 0:
            _require(self._fetch(remote, f"+refs/heads/*:refs/remotes/{remote}/*"), f"fetching {commit[:12]}")

    def _fetch(self, remote: str, refspec: str) -> _Finished:
        options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance")
        return self._git("fetch", *options, "--end-of-options", remote, refspec, deadline_s=self._fetch_deadline_s)

    def _remove_stale_files(self) -> None:
        """What a killed Git left behind: locks that would refuse every later fetch, half packs that fill the disk."""
        locks = [*self._git_path.glob("*.lock"), *(self._git_path / "refs").rglob("*.lock")]
        ours = [lock for lock in locks if lock.name not in ("index.lock", "config.lock")]
        packs = list((self._git_path / "objects" / "pack").glob("tmp_*"))
        for paths, limit_s in ((ours, STALE_LOCK_S), (packs, STALE_PACK_S)):
            for path in paths:
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > limit_s:
                        path.unlink()

    # --- checking ------------------------------------------------------------------------------------------

    def _require_own_name(self, version: str) -> None:
        """A signed tag says its own name inside: another version's signature must not serve for this one."""
        shown = self._git("cat-file", "tag", f"refs/tags/{version}")
        header = shown.output.partition("\n\n")[0].splitlines()
        if shown.code != 0 or f"tag {version}" not in header:
            raise Refused(f"version {version} is not a signed tag of that name and TEG_OTA_REQUIRE_SIGNATURE is on")

    def _build_context(self, tree: Path) -> Checkout:
        wanted = tree / self._relative_context()
        if not wanted.is_dir() and (tree / self._dockerfile).is_file():
            wanted = tree  # the reference's guide promises the repository's root, its code uses docker/
        context = wanted.resolve()
        dockerfile = (context / self._dockerfile).resolve()
        for path, name in ((context, "build context"), (dockerfile, "Dockerfile")):
            if not path.is_relative_to(tree.resolve()):
                raise Refused(f"the {name} of this version leads out of the repository")
        if not dockerfile.is_file():
            raise Refused(
                f"this version has no {self._relative_context() / self._dockerfile}: "
                "see TEG_CONTROLLER_DOCKERCONTEXT_PATH and TEG_CONTROLLER_DOCKERFILE_PATH"
            )
        return Checkout(context, os.path.relpath(dockerfile, context))

    def _relative_context(self) -> Path:
        if self._context is None:
            return Path("docker")
        root = self._git_path.parent
        for base in (root, root.resolve()):
            if self._context.is_relative_to(base):
                return self._context.relative_to(base)
        raise Refused(f"TEG_CONTROLLER_DOCKERCONTEXT_PATH={self._context} is not inside the repository {root}")

    def _require_repository(self, found: _Finished) -> None:
        """Tell 'no such version' from 'no repository, or a damaged one'."""
        if found.code not in (0, 1):
            raise Unavailable(f"the controller repository {self._git_path} cannot be read: {_last(found)}")

    # --- running Git ---------------------------------------------------------------------------------------

    def _git(self, *arguments: str, deadline_s: float = LOCAL_DEADLINE_S, environment: Sequence[str] = ()) -> _Finished:
        options = [part for setting in self._settings() for part in ("-c", setting)]
        argv = [*_ENVIRONMENT, f"GIT_SSH_COMMAND={_SSH}", *environment, "git", *options]
        return _run([*argv, f"--git-dir={self._git_path}", *arguments], deadline_s, self._stopping)

    def _settings(self) -> Sequence[str]:
        """The gateway often runs as root on a repository of another user, which Git refuses without being told."""
        return (*_CONFIGURATION, f"safe.directory={self._git_path}", f"safe.directory={self._git_path.parent}")


def _run(argv: Sequence[str], deadline_s: float, stopping: Callable[[], bool]) -> _Finished:
    """Raises Unavailable at the deadline or when the gateway stops, with Git and all its children killed."""
    with suppress_disk("git cannot be run"):
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd="/",
            umask=0o022,  # the build copies the modes of what it finds: the controller's own users must read it
            start_new_session=True,
        )
    with process:
        end_s = time.monotonic() + deadline_s
        while True:
            try:
                output, complaint = process.communicate(timeout=min(0.5, deadline_s))
                return _Finished(process.returncode, output, complaint)
            except subprocess.TimeoutExpired:
                if time.monotonic() < end_s and not stopping():
                    continue
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise Unavailable("the gateway stops" if stopping() else f"git did not finish within {deadline_s:g} s")


def _require(done: _Finished, what: str) -> None:
    if done.code != 0:
        raise Unavailable(f"{what} failed: {_last(done)}")


def _last(done: _Finished) -> str:
    """The lines that name the reason, in one."""
    lines = [line.strip() for line in done.complaint.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-3:]
    return " / ".join(telling)[:500] or f"git ended with code {done.code}"


class suppress_disk:  # noqa: N801 - used like contextlib's
    """Turn a failing disk or a missing program into Unavailable."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise Unavailable(f"{self._what}: {error}") from error
