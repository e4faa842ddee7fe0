"""What to do about one file, decided from what is wanted and what was seen."""

from enum import StrEnum
from typing import Any

from teg.domain.files.definitions import Definition
from teg.domain.files.desired import Content
from teg.domain.files.ports import Seen


class Step(StrEnum):
    MIRROR = "mirror"  #: nothing is wanted: report what is there
    KEEP = "keep"  #: what is wanted is there
    LEAVE = "leave"  #: may not be created
    REFUSE = "refuse"  #: was put back once, waits for a new write_version
    WRITE = "write"


def plan_file(definition: Definition, content: Content | None, seen: Seen | None, refused: str | None) -> Step:
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
