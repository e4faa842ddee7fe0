"""strace around the children of `device_life`: a kill or an error at the k-th call of a kind, for every k."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.device_life import prepare
from tests.support.running import PROJECT

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


class DeviceLives:
    """The fork server, and strace around its children."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.device_life"],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def live(self, folder: Path, scenario: str, *strace: str) -> int:
        """One life in `folder`, traced with these options; returns its wait status."""
        pid = int(self._said(f"{folder} {scenario}", "stopped"))
        tracer = None
        if strace:
            # not into a pipe: one that nobody reads is full after 64 KiB, and stops the traced for good
            command = ["strace", "-qq", "-o", os.devnull, *strace, "-p", str(pid)]
            tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
                assert tracer.poll() is None, "strace could not attach"
        os.kill(pid, signal.SIGCONT)
        status = int(self._said("", "ended"))
        if tracer:
            tracer.wait(20)
        return status

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

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _said(self, line: str, expected: str) -> str:
        assert self._process.stdin and self._process.stdout
        if line:
            self._process.stdin.write(line + "\n")
        word, value = self._process.stdout.readline().split()
        assert word == expected
        return value


def fresh(prepared: Path) -> Path:
    """A copy of the prepared device, so that every life begins alike."""
    folder = prepared.with_name("run")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder)
    return folder


def prepared_device(path: Path, scenario: str) -> Path:
    prepare(path / "prepared", scenario)
    return path / "prepared"
