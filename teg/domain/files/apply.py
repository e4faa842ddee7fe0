"""Writes a wanted content: trial first, restart armed, bytes on disk, read back; and takes it all back on failure."""

import logging
from dataclasses import replace
from enum import StrEnum
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.files.commit_confirm import Confirmation
from teg.domain.files.definitions import Definition
from teg.domain.files.desired import Content
from teg.domain.files.memory import Failures, Remembered, Restarts
from teg.domain.files.ports import FileState, FileStore
from teg.domain.ports import Clock


class Step(StrEnum):
    MIRROR = "mirror"  #: nothing is wanted: report what is there
    KEEP = "keep"  #: what is wanted is there
    LEAVE = "leave"  #: may not be created
    REFUSE = "refuse"  #: was put back once, waits for a new write_version
    WRITE = "write"


def plan_file(definition: Definition, content: Content | None, seen: FileState | None, refused: str | None) -> Step:
    """`refused` is the digest of the content that was put back last, None if none ever was."""
    if content is None:
        return Step.MIRROR
    if seen is not None and seen.md5 == content.md5 and definition.mode in (None, seen.mode):
        return Step.KEEP
    if refused == content.digest(definition.write_version):
        return Step.REFUSE
    if seen is None and not definition.create:
        return Step.LEAVE
    return Step.WRITE


def applied_entry(definition: Definition, content: Content) -> dict[str, Any]:
    """What is remembered of a content that is on disk."""
    return {"hash": content.md5, "write_version": definition.write_version, "path": definition.path}


logger = logging.getLogger("gateway.files")


#: No report can carry more, so it is not kept: six hundred files of 1 MiB would not fit into a small device.
MAX_KEPT_BYTES = 128 << 10


class Disk:
    """The store behind a memory of earlier looks: an unchanged file costs a stat."""

    def __init__(self, store: FileStore) -> None:
        self.store = store
        self._seen: dict[str, FileState] = {}

    def look(self, path: str) -> FileState | None:
        """The file, its content left out when nothing changed or when it is large."""
        return self._remember(path, self.store.look(path, self._seen.get(path)))

    def read(self, path: str) -> FileState | None:
        """The file with its content, unless that is large, whatever is remembered."""
        return self._remember(path, self.store.look(path))

    def _remember(self, path: str, seen: FileState | None) -> FileState | None:
        self._seen.pop(path, None)
        if seen is None:
            return None
        self._seen[path] = replace(seen, content=None)
        return seen if seen.size <= MAX_KEPT_BYTES else self._seen[path]


class Writer:
    """Applies one content after the other; failures wait with growing pauses, per file."""

    def __init__(
        self, disk: Disk, confirmation: Confirmation, restarts: Restarts, applied: Remembered, clock: Clock
    ) -> None:
        self._disk = disk
        self._confirmation = confirmation
        self._restarts = restarts
        self._applied = applied
        self._clock = clock
        self.failures = Failures()

    def write(self, definition: Definition, content: Content, seen: FileState | None) -> None:
        """Put `content` in place of `seen`.

        Raises:
            Unavailable: it is not there; also while the last failure is too recent for another try.
        """
        key, digest = definition.key, content.digest(definition.write_version)
        now_s = self._clock.monotonic_s()
        if reason := self.failures.waiting(key, digest, now_s):
            raise Unavailable(reason)
        try:
            self._write(definition, content, seen)
        except (Refused, Unavailable) as error:
            said = f"not written: {error}"
            self.failures.add(key, digest, said, now_s)
            raise Unavailable(said) from error
        self.failures.clear(key)
        self._applied.put(key, applied_entry(definition, content))

    def _write(self, definition: Definition, content: Content, seen: FileState | None) -> None:
        changed = seen is None or seen.md5 != content.md5
        drift = changed and self._applied.get(definition.key) == applied_entry(definition, content)
        restart = changed and definition.restart_controller and self._may_restart(definition.key, drift)
        before = self._confirmation.get(definition.key)
        if changed and not drift:
            self._confirmation.begin(definition, content)
        if restart:
            self._restarts.arm(definition.key)
        try:
            self._store(definition, content)
        except (Refused, Unavailable):
            self._restarts.disarm(definition.key)
            self._confirmation.take_back(definition.key, before)
            raise
        if restart:
            self._restarts.now_due(definition.key)
        self._confirmation.written(definition.key, content.digest(definition.write_version))
        _log(definition, drift)

    def _may_restart(self, key: str, drift: bool) -> bool:
        return not drift or self._restarts.allowed_for_drift(key, self._clock.monotonic_s())

    def _store(self, definition: Definition, content: Content) -> None:
        """Believe the bytes that are read back, not those that were handed over."""
        self._disk.store.write(definition.path, content.data, definition.mode)
        written = self._disk.read(definition.path)
        if written is None or written.md5 != content.md5:
            raise Unavailable("the file was changed while it was written")


def _log(definition: Definition, drift: bool) -> None:
    if drift:
        logger.warning("file '%s' had been changed locally; written as the server wants it", definition.key)
    else:
        logger.info("file '%s' written to %s", definition.key, definition.path)
