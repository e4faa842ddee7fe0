"""The three sources of a controller version behind one promise: fetch, verify, install.

Every step may be repeated after a crash. Nothing here touches the running controller.
"""

import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import Assignment
from teg.domain.ota.job import Job
from teg.domain.ota.package_download import CalledOff, PackageFile, PackageStore, download, verify
from teg.domain.ota.signatures import SignatureCheck, statement
from teg.domain.ports import Session
from teg.domain.supervision import ControllerRuntime

Cancelled = Callable[[], bool]


class UnknownVersion(Refused):
    """No such tag or commit, here or at the remote."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A commit laid out on disk: what to build. `dockerfile` is relative to `context`."""

    context: Path
    dockerfile: str


class Repository(Protocol):
    """The controller's local Git repository. Every call has a deadline."""

    def commit_of(self, version: str) -> str | None:
        """The commit of a tag or full hash as far as it is known here, without network; raises Unavailable."""
        ...

    def fetch(self, version: str) -> None:
        """Get a tag or commit from the remote.

        Raises:
            UnknownVersion: the remote has none of that name.
            Unavailable: the remote cannot be reached, or the disk is full.
        """
        ...

    def verify_signature(self, version: str, commit: str) -> None:
        """Raises Refused unless the tag (or commit) carries a good signature by a key this device trusts."""
        ...

    def check_out(self, commit: str) -> Checkout:
        """Lay the commit out in a fresh directory; raises Refused when there is nothing in it to build."""
        ...

    def clear(self) -> None:
        """Remove what was laid out."""
        ...


class SoftwareSource(Protocol):
    """Where versions come from; raises Refused (never), Unavailable (later), CalledOff (not wanted any more)."""

    def held_bytes(self, job: Job) -> int:
        """How much of a resumable download is here already."""
        ...

    def fetch(self, job: Job, cancelled: Cancelled) -> Job:
        """Bring it to this device; returns the job with what was learned."""
        ...

    def verify(self, job: Job) -> None: ...

    def install(self, job: Job, cancelled: Cancelled) -> None:
        """Make it the kept image of the version."""
        ...

    def clear(self) -> None:
        """Remove temporary files."""
        ...


class GitSource:
    """A tag or hash of the local repository, built here."""

    def __init__(self, repository: Repository | None, runtime: ControllerRuntime, signed_only: bool) -> None:
        self._repository = repository
        self._runtime = runtime
        self._signed_only = signed_only

    def held_bytes(self, job: Job) -> int:
        return 0

    def fetch(self, job: Job, cancelled: Cancelled) -> Job:
        """What resolves locally needs no remote and no network; what was resolved once stays that commit."""
        repository = self._required()
        commit = repository.commit_of(job.version)
        if commit is None:
            repository.fetch(job.version)
            commit = repository.commit_of(job.version)
        if commit is None:
            raise UnknownVersion(f"version {job.version} is neither a tag nor a commit of the controller repository")
        if job.commit and commit != job.commit:
            raise Refused(
                f"tag {job.version} meant commit {job.commit[:12]} when it was first used and means {commit[:12]} now: "
                "publish the change under a new version"
            )
        return replace(job, commit=commit)

    def verify(self, job: Job) -> None:
        if self._signed_only:
            self._required().verify_signature(job.version, job.commit)

    def install(self, job: Job, cancelled: Cancelled) -> None:
        """A failed build is tried again: most of them fail in a step that downloads something."""
        checkout = self._required().check_out(job.commit)
        try:
            self._runtime.build(job.version, checkout.context, checkout.dockerfile, cancelled)
        except Refused as reason:
            if cancelled():
                raise CalledOff(str(reason)) from reason
            raise Unavailable(f"the build of version {job.version} failed: {reason}") from reason

    def clear(self) -> None:
        if self._repository is not None:
            self._repository.clear()

    def _required(self) -> Repository:
        if self._repository is None:
            raise Refused(
                "this version would come from Git but TEG_CONTROLLER_GIT_PATH is not set: set it, or assign a "
                "ThingsBoard package or a registry image"
            )
        return self._repository


class RegistrySource:
    """An image of an allow-listed registry; with a digest the engine checks the content."""

    def __init__(self, runtime: ControllerRuntime, signatures: SignatureCheck | None = None) -> None:
        self._runtime = runtime
        self._signatures = signatures

    def held_bytes(self, job: Job) -> int:
        return 0

    def fetch(self, job: Job, cancelled: Cancelled) -> Job:
        """A required signature comes first: an image that was pulled is an image that may be started."""
        check_signature(self._signatures, job.assignment)
        try:
            self._runtime.pull(job.version, job.assignment.reference, cancelled)
        except Refused as reason:
            if cancelled():
                raise CalledOff(str(reason)) from reason
            raise
        return job

    def verify(self, job: Job) -> None:
        if not self._runtime.has_image(job.version):
            raise Unavailable(f"the image {job.assignment.reference} was pulled and is gone again")

    def install(self, job: Job, cancelled: Cancelled) -> None:
        """The pull has made it the kept image."""

    def clear(self) -> None:
        """The engine clears up after itself."""


class PackageSource:
    """A `docker save` archive that ThingsBoard hands out in chunks."""

    def __init__(
        self,
        session: Session,
        store: PackageStore,
        runtime: ControllerRuntime,
        signatures: SignatureCheck | None = None,
    ) -> None:
        self._session = session
        self._signatures = signatures
        self._store = store
        self._runtime = runtime
        # A request id of an earlier process may still be pinned to another package in the same session.
        self._request_ids = itertools.count(random.randrange(1, 1 << 30))  # noqa: S311 - distinct, not secret

    def held_bytes(self, job: Job) -> int:
        return self._file(job.assignment).held_bytes()

    def fetch(self, job: Job, cancelled: Cancelled) -> Job:
        check_signature(self._signatures, job.assignment)
        try:
            download(self._session, self._file(job.assignment), job.assignment, next(self._request_ids), cancelled)
        except CalledOff:
            raise
        except Refused:
            self._store.clear()
            raise
        return job

    def verify(self, job: Job) -> None:
        """A file that was pieced together over a power cut gets a second chance from its first byte.

        The signature is over the checksum that the file is compared with.
        """
        check_signature(self._signatures, job.assignment)
        try:
            verify(self._file(job.assignment), job.assignment)
        except Refused as reason:
            self._store.clear()
            if job.resumed:
                raise Corrupt(str(reason)) from reason
            raise

    def install(self, job: Job, cancelled: Cancelled) -> None:
        """The file stays until the update has ended: a crash in here repeats the step."""
        file = self._file(job.assignment)
        if file.held_bytes() != job.assignment.size:
            raise Corrupt("the verified package was removed from the disk")
        self._runtime.load_archive(job.version, file.path)

    def clear(self) -> None:
        self._store.clear()

    def _file(self, assignment: Assignment) -> PackageFile:
        return self._store.open(f"{assignment.algorithm}-{assignment.checksum}-{assignment.size}")


def check_signature(signatures: SignatureCheck | None, assignment: Assignment) -> None:
    """Where one is required; raises as `SignatureCheck.verify` does."""
    if signatures is not None:
        signatures.verify(statement(assignment.version, assignment.digest()), assignment.signature)


class Corrupt(Unavailable):
    """What was fetched is damaged and was removed: fetch it again."""


def clear_quietly(source: SoftwareSource) -> None:
    """Temporary files that cannot be removed now are removed before the next update."""
    with suppress(Unavailable):
        source.clear()
