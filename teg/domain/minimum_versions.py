"""Which versions of what we stand on are needed, and below which ones a known hole is open; data, and one judgement.

Distributions mend holes without a new version number, so `OPEN` is a question to the operator, never a refusal.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

Version = tuple[int, ...]


class Judgement(StrEnum):
    GOOD = "good"
    OPEN = "open"  #: older than the mend of `reason`; the distribution may have mended it
    TOO_OLD = "too old"  #: something of ours does not work
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """`needed` for our functions (`needed_for`), `mended` closes the last hole that matters here (`hole`)."""

    needed: Version
    needed_for: str
    mended: Version
    hole: str


MINIMUM: dict[str, Minimum] = {
    "docker": Minimum(
        needed=(20, 10),
        needed_for="what the tests run against",
        mended=(25, 0, 2),
        hole="the build and image holes of January 2024 (CVE-2024-23651 to 23653)",
    ),
    "runc": Minimum(
        needed=(1, 1),
        needed_for="the container's profile",
        mended=(1, 2, 8),
        hole="a container writes to the host through masked paths (CVE-2025-31133, 52565, 52881)",
    ),
    "git": Minimum(
        needed=(2, 34),
        needed_for="signatures by SSH keys",
        mended=(2, 39, 4),
        hole="a hostile repository runs programs (CVE-2024-32002, 32004)",
    ),
    "ssh": Minimum(
        needed=(8, 2),
        needed_for="ssh-keygen -Y find-principals",
        mended=(8, 2),
        hole="",
    ),
    # The WAL-reset bug (3.7.0 to 3.51.2) needs two writers at a checkpoint; ours takes one at a time.
    "sqlite": Minimum(
        needed=(3, 38),
        needed_for="JSON functions that are always there",
        mended=(3, 50, 2),
        hole="memory errors in hostile queries (CVE-2025-6965); the inbox is read by a confined process",
    ),
}

_VERSION = re.compile(r"\d+(?:\.\d+)+")


def parse_version_number(text: str) -> Version | None:
    """The first dotted number in what a program says of itself; None without one."""
    found = _VERSION.search(text[:200])
    return None if found is None else tuple(int(part) for part in found[0].split(".")[:4])


def judge_version(program: str, text: str) -> Judgement:
    """`text` is what the program says, e.g. `git version 2.39.5` or `1.1.5+ds1`."""
    minimum, version = MINIMUM[program], parse_version_number(text)
    if version is None:
        return Judgement.UNKNOWN
    if version < minimum.needed:
        return Judgement.TOO_OLD
    return Judgement.OPEN if version < minimum.mended else Judgement.GOOD


def advice(program: str, judgement: Judgement) -> str:
    """One clause for the operator; empty where there is nothing to say."""
    minimum = MINIMUM[program]
    if judgement is Judgement.TOO_OLD:
        return f"{program} {dotted(minimum.needed)} is needed for {minimum.needed_for}"
    if judgement is Judgement.OPEN:
        return f"before {program} {dotted(minimum.mended)}: {minimum.hole}; see whether your distribution mended it"
    return ""


def dotted(version: Version) -> str:
    return ".".join(map(str, version))
