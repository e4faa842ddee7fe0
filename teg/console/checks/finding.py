"""One line of `teg check`, and what every check may look at."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from teg.domain.minimum_versions import Judgement, advice, judge_version
from teg.settings import Settings


class Level(Enum):
    """Its value is the order in which lines are shown."""

    PROBLEM = 0
    WARNING = 1
    FINE = 2
    SKIPPED = 3

    @property
    def sign(self) -> str:
        return {"PROBLEM": "✗", "WARNING": "!", "FINE": "✓", "SKIPPED": "–"}[self.name]


@dataclass(frozen=True, slots=True)
class Finding:
    """`remedy` is what to do; every PROBLEM and WARNING has one."""

    level: Level
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level.sign} {self.subject}: {self.text}" + (f" → {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class Site:
    """The settings, and the running gateway's own account, None where none runs."""

    settings: Settings
    gateway: Mapping[str, Any] | None


Check = Callable[[Site], Iterator[Finding]]


def fine(subject: str, text: str) -> Finding:
    return Finding(Level.FINE, subject, text)


def skipped(subject: str, text: str) -> Finding:
    return Finding(Level.SKIPPED, subject, text)


def warning(subject: str, text: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, subject, text, remedy)


def problem(subject: str, text: str, remedy: str) -> Finding:
    return Finding(Level.PROBLEM, subject, text, remedy)


def aged(subject: str, program: str, version: str, text: str) -> Finding:
    """A version and what its age means; `text` has its place. An open hole is only a hint: distributions mend."""
    judgement = judge_version(program, version)
    found = text.format(version)
    if judgement is Judgement.TOO_OLD:
        return problem(subject, f"{found}: {advice(program, judgement)}", "upgrade the operating system")
    return fine(subject, found + (f" ({hint})" if (hint := advice(program, judgement)) else ""))
