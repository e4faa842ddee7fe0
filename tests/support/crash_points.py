"""strace around the children of `device_life`: a kill or an error at the k-th call of a kind, for every k."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.device_life import prepare
from tests.support.traced_lives import TracedLives

#: Whatever changes a file or a name, and makes a change durable.
CHANGES = (
    *("pwrite64", "write", "fdatasync", "fsync", "ftruncate", "fallocate"),
    *("rename", "link", "linkat", "unlink", "unlinkat", "mkdir", "rmdir"),
)
#: The calls of SQLite and of the quarantine that a disk can refuse, and with what.
ERRORS = {
    "EIO": ("pwrite64", "pread64", "fdatasync", "fsync", "ftruncate", "rename", "link"),
    "ENOSPC": ("pwrite64", "fdatasync", "fallocate", "mkdir", "rename", "link"),
}


@dataclass(frozen=True, slots=True)
class Point:
    """`effect`: KILL, or an error once (`EIO`) or from there on (`EIO+`)."""

    call: str
    number: int
    effect: str

    def __str__(self) -> str:
        return f"{self.effect} at {self.call} number {self.number}"

    @property
    def injection(self) -> str:
        what = "signal=KILL" if self.effect == "KILL" else f"error={self.effect.rstrip('+')}"
        return f"inject={self.call}:{what}:when={self.number}{'+' * self.effect.endswith('+')}"


class DeviceLives(TracedLives):
    def __init__(self) -> None:
        super().__init__("tests.support.device_life", quiet=True)

    def live(self, folder: Path, scenario: str, *strace: str) -> int:
        """One life in `folder`, traced with these options; returns its wait status."""
        return self.life(f"{folder} {scenario}", *strace)

    def points(self, prepared: Path, scenario: str) -> Iterator[Point]:
        """Every point of an undisturbed life."""
        traced = sorted({*CHANGES, *(call for calls in ERRORS.values() for call in calls)})
        log = prepared.with_name("trace")
        folder = fresh(prepared)
        status = self.live(folder, scenario, "-e", f"trace={','.join(traced)}", "-o", str(log))
        assert status == 0, f"an undisturbed life ended with {status}"
        made = re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE)
        for call in CHANGES:
            yield from (Point(call, number, "KILL") for number in range(1, made.count(call) + 1))
        for error, calls in ERRORS.items():
            for call in calls:
                for number in range(1, made.count(call) + 1):
                    yield from (Point(call, number, error), Point(call, number, error + "+"))


def fresh(prepared: Path) -> Path:
    """A copy of the prepared device, so that every life begins alike."""
    folder = prepared.with_name("run")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder)
    return folder


def prepared_device(path: Path, scenario: str) -> Path:
    prepare(path / "prepared", scenario)
    return path / "prepared"
