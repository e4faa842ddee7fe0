"""Our own bare repository, the only one that Git works in with our rights; what comes in was checked on its way."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from teg.adapters.git_repository.process import MAX_FILE_BYTES, Finished, Git, disk, require
from teg.adapters.git_repository.source import SourceRepository
from teg.domain.errors import Refused
from teg.domain.ota.assignment import is_commit_hash

#: A lock of Git older than this was left behind by a killed one: they are held for moments.
STALE_LOCK_S = 60.0
STALE_PACK_S = 3600.0
#: Beyond this the mirror is begun anew: versions are copied into it from the clone or the remote again.
MAX_MIRROR_BYTES = 2 << 30
#: "With all of its history", in the words of a shallow fetch.
_ALL_HISTORY = "--depth=2147483647"


class Mirror:
    """At `path`, made when it is first needed; losing it loses nothing."""

    def __init__(self, git: Git, path: Path) -> None:
        self._git = git
        self.path = path

    def run(
        self,
        *arguments: str,
        settings: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> Finished:
        """`options` as those of `Git.run`."""
        given = (f"--git-dir={self.path}", *arguments)
        return self._git.run(*given, settings=settings, environment=environment, **options)

    def prepare(self, object_format: str) -> None:
        """Make it, or make it anew when it has grown too large or holds another kind of objects."""
        found = self.run("rev-parse", "--show-object-format") if self.path.exists() else None
        if found is not None and found.output.strip() == object_format and self._size() <= MAX_MIRROR_BYTES:
            self._remove_stale_files()
            return
        self.remove()
        with disk(f"cannot make {self.path}"):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = self._git.run("init", "--quiet", "--bare", f"--object-format={object_format}", "--", str(self.path))
        require(made, "making the mirror of the controller repository")
        with disk(f"cannot make {self.path}"):
            self.path.chmod(0o700)

    def remove(self) -> None:
        with disk("cannot remove the mirror of the controller repository"):
            if self.path.exists():
                shutil.rmtree(self.path)

    def object_of(self, version: str) -> str | None:
        return self._resolved(ref_of(version))

    def commit_of(self, version: str) -> str | None:
        return self._resolved(ref_of(version) + "^{commit}")

    def take_over(self, source: SourceRepository, version: str, object_id: str) -> None:
        """Copy what `version` means in `source`; the ref is written last, so half a copy is never used."""
        if self.object_of(version) == object_id:
            return
        with disk("cannot make a temporary file"), tempfile.TemporaryFile(dir=self.path) as pack:
            source.write_pack(object_id, pack)
            if pack.tell() > MAX_FILE_BYTES:
                raise Refused("this version is too large")
            pack.seek(0)
            packed = self._git.run(f"--git-dir={self.path}", "index-pack", "--stdin", "--fsck-objects", stdin=pack)
        require(packed, f"reading version {version}")
        self._note_missing_history(object_id)
        self._set_ref(version, object_id)

    def fetch_tag(self, url: str, version: str, deadline_s: float) -> Finished:
        return self._fetch(url, f"{ref_of(version)}:{ref_of(version)}", "--depth=1", deadline_s)

    def fetch_commit(self, url: str, commit: str, deadline_s: float) -> None:
        """Directly where the server allows it, else with all branches; raises Unavailable when it is not there."""
        if self._fetch(url, commit, "--depth=1", deadline_s).code != 0:
            done = self._fetch(url, "+refs/heads/*:refs/remotes/origin/*", _ALL_HISTORY, deadline_s)
            require(done, f"fetching {commit[:12]}")
        self._set_ref(commit, commit)

    def _fetch(self, url: str, refspec: str, depth: str, deadline_s: float) -> Finished:
        options = ("--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-maintenance")
        return self.run("fetch", *options, depth, "--end-of-options", url, refspec, deadline_s=deadline_s)

    def _resolved(self, name: str) -> str | None:
        if not self.path.exists():
            return None
        found = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", name)
        return found.output.strip() or None if found.code == 0 else None

    def _set_ref(self, version: str, object_id: str) -> None:
        require(self.run("update-ref", ref_of(version), object_id), f"noting version {version}")

    def _note_missing_history(self, object_id: str) -> None:
        """Git's own word for a commit whose parents are not here; without it a fetch would build on them."""
        shown = self.run("rev-list", "--no-walk", "--parents", object_id)
        require(shown, f"reading {object_id[:12]}")
        commit, *parents = shown.output.split()
        shallow = self.path / "shallow"
        with disk("cannot write the mirror of the controller repository"):
            known = set(shallow.read_text().split()) if shallow.exists() else set()
            if parents and commit not in known:
                shallow.write_text("".join(f"{name}\n" for name in sorted({*known, commit})))

    def _size(self) -> int:
        with suppress(OSError):
            return sum(path.lstat().st_size for path in self.path.rglob("*"))
        return 0

    def _remove_stale_files(self) -> None:
        """What a killed Git left behind: locks that would refuse every later fetch, half packs that fill the disk."""
        locks = [*self.path.glob("*.lock"), *(self.path / "refs").rglob("*.lock")]
        packs = list((self.path / "objects" / "pack").glob("tmp_*"))
        for paths, limit_s in ((locks, STALE_LOCK_S), (packs, STALE_PACK_S)):
            for path in paths:
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > limit_s:
                        path.unlink()


def ref_of(version: str) -> str:
    return f"refs/versions/{version}" if is_commit_hash(version) else f"refs/tags/{version}"
