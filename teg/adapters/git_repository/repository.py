"""Resolve a version of the controller, fetch it, check its signature, lay out its files.

The server chooses versions and others write the repository, so nothing of it is trusted to run or to configure. The
clone on the device is read as data (`source`), a remote by its address alone; both end in a bare repository of ours
(`mirror`), and only there does Git work: no hooks, filters, submodules, includes, alternates, helpers or transports of
anybody else. The clone itself is never written.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from teg.adapters.git_repository.checkout import Checkouts, build_context
from teg.adapters.git_repository.mirror import Mirror, ref_of
from teg.adapters.git_repository.process import LOCAL_DEADLINE_S, Finished, Git, last_lines, require
from teg.adapters.git_repository.remote import local_path
from teg.adapters.git_repository.source import SourceRepository, opened
from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import is_commit_hash
from teg.domain.ota.sources import Checkout, UnknownVersion
from teg.domain.redaction import redacted_text

FETCH_DEADLINE_S = 600.0


class GitRepository:
    """`ota.sources.Repository` over the `.git` directory (or bare repository) at `git_path`.

    `signers`: file with the SSH keys that may sign (ssh-keygen(1), ALLOWED SIGNERS).
    """

    def __init__(
        self,
        git_path: Path,
        context: Path | None,
        dockerfile: str,
        checkouts: Path,
        fetch_deadline_s: float = FETCH_DEADLINE_S,
        stopping: Callable[[], bool] = lambda: False,
        signers: Path | None = None,
        proxy_url: str | None = None,
        local_deadline_s: float = LOCAL_DEADLINE_S,
    ) -> None:
        self._git_path = git_path
        self._context = context
        self._dockerfile = dockerfile
        self._fetch_deadline_s = fetch_deadline_s
        self._signers = signers
        self._git = Git(stopping, local_deadline_s, proxy_url=proxy_url)
        self._mirror = Mirror(self._git, checkouts.with_name("mirror.git"))
        self._checkouts = Checkouts(self._mirror, checkouts)

    def commit_of(self, version: str) -> str | None:
        with opened(self._git, self._git_path) as source:
            self._mirror.prepare(source.object_format())
            self._take_over(source, version)
        return self._mirror.commit_of(version)

    def fetch(self, version: str) -> None:
        with opened(self._git, self._git_path) as clone:
            self._mirror.prepare(clone.object_format())
            remotes = clone.remotes()
        if not remotes:
            raise UnknownVersion(
                f"version {version} is not in the controller repository, which has no remote to fetch it from"
            )
        url = remotes[_chosen(remotes)]
        local = local_path(url)
        if local is not None:
            self._fetch_locally(local, version)
        elif is_commit_hash(version):
            self._mirror.fetch_commit(url, version, self._fetch_deadline_s)
        else:
            self._check_fetched(self._mirror.fetch_tag(url, version, self._fetch_deadline_s), version)

    def ask_remote(self, deadline_s: float) -> str:
        """The name of the remote, once it has answered; raises Unavailable when it does not, Refused when none is."""
        with opened(self._git, self._git_path) as clone:
            remotes = clone.remotes()
        if not remotes:
            raise Refused("the repository has no remote to fetch versions from")
        name = _chosen(remotes)
        local = local_path(remotes[name])
        if local is not None:
            try:
                with opened(self._git, local) as source:
                    source.find("HEAD")
            except Unavailable as reason:
                raise Unavailable(f"asking the remote '{name}' failed: {reason}") from reason
            return name
        done = self._git.run("ls-remote", "--quiet", "--end-of-options", remotes[name], "HEAD", deadline_s=deadline_s)
        _require_answer(done, f"asking the remote '{name}'")
        return name

    def verify_signature(self, version: str, commit: str) -> None:
        self.commit_of(version)
        settings = () if self._signers is None else (f"gpg.ssh.allowedSignersFile={self._signers}",)
        kind = "verify-commit" if is_commit_hash(version) else "verify-tag"
        if kind == "verify-tag":
            self._require_own_name(version)
        checked = self._mirror.run(kind, "--end-of-options", ref_of(version), settings=settings)
        if checked.code != 0 or self._mirror.commit_of(version) != commit:
            raise Refused(
                f"version {version} has no good signature and TEG_OTA_REQUIRE_SIGNATURE is on: {last_lines(checked)}"
            )

    def check_out(self, commit: str) -> Checkout:
        """Lay the commit out in a fresh directory: what was copied or fetched before, else from the clone."""
        if self._mirror.run("cat-file", "-e", commit + "^{tree}").code != 0 and self.commit_of(commit) is None:
            raise Unavailable(f"commit {commit[:12]} is gone: assign the version anew")
        relative = self._relative_context()
        return build_context(self._checkouts.lay_out(commit), relative, self._dockerfile)

    def clear(self) -> None:
        self._checkouts.clear()

    # --- into the mirror ---------------------------------------------------------------------------------------

    def _take_over(self, source: SourceRepository, version: str) -> bool:
        """Whether `source` has the version; then the mirror has it, too."""
        name = version + "^{commit}" if is_commit_hash(version) else ref_of(version)
        object_id = source.find(name)
        if object_id is None or not source.has(object_id):
            return False
        self._mirror.take_over(source, version, object_id)
        return True

    def _fetch_locally(self, path: Path, version: str) -> None:
        """A remote that is a directory is read as the clone is: its configuration would have us run programs, too."""
        try:
            with opened(self._git, path) as source:
                known = self._mirror.object_of(version)
                moved = known is not None and source.find(ref_of(version)) not in (None, known)
                if moved and not is_commit_hash(version):
                    raise Unavailable(f"tag {version} of {path} means something else than it did")
                found = self._take_over(source, version)
        except Unavailable as reason:
            raise Unavailable(f"fetching {version} failed: {reason}") from reason
        if not found:
            raise UnknownVersion(_unknown(version))

    def _check_fetched(self, done: Finished, version: str) -> None:
        if "find remote ref" in done.complaint:
            raise UnknownVersion(_unknown(version))
        _require_answer(done, f"fetching {version}")

    # --- checking ----------------------------------------------------------------------------------------------

    def _require_own_name(self, version: str) -> None:
        """A signed tag says its own name inside: another version's signature must not serve for this one."""
        shown = self._mirror.run("cat-file", "tag", ref_of(version))
        header = shown.output.partition("\n\n")[0].splitlines()
        if shown.code != 0 or f"tag {version}" not in header:
            raise Refused(f"version {version} is not a signed tag of that name and TEG_OTA_REQUIRE_SIGNATURE is on")

    def _relative_context(self) -> Path:
        if self._context is None:
            return Path("docker")
        root = self._git_path if (self._git_path / ".git").exists() else self._git_path.parent
        for base in (root, Path(os.path.realpath(root))):
            if self._context.is_relative_to(base):
                return self._context.relative_to(base)
        raise Refused(f"TEG_CONTROLLER_DOCKERCONTEXT_PATH={self._context} is not inside the repository {root}")


def _chosen(remotes: Mapping[str, str]) -> str:
    return "origin" if "origin" in remotes else next(iter(remotes))


def _require_answer(done: Finished, what: str) -> None:
    """Git names the address in its complaint, and a password may be part of it."""
    try:
        require(done, what)
    except Unavailable as reason:
        raise Unavailable(redacted_text(str(reason))) from reason


def _unknown(version: str) -> str:
    return f"version {version} is no tag of the controller repository: push the tag, or assign another version"
