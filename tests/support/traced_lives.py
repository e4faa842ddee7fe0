"""A fork server (a module of tests/support that stops each child before it begins), and strace around its children."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tests.support.running import PROJECT


class TracedLives:
    """The server says `stopped PID` for each line that it is given, and `ended STATUS` when that child is done."""

    def __init__(self, module: str, *, quiet: bool = False) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
            bufsize=1,
        )

    def life(self, line: str, *strace: str) -> int:
        """One life of a child that is told `line`, traced with these options; returns its wait status."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(line + "\n")
        pid = int(self._said("stopped"))
        with _traced(pid, strace) if strace else nullcontext():
            os.kill(pid, signal.SIGCONT)
            return int(self._said("ended"))

    def close(self) -> None:
        """A server that does not end fails its own test, and leaves nothing to a later one."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        with self._process.stdout, _killed_in_the_end(self._process):
            self._process.wait(10)

    def _said(self, expected: str) -> str:
        assert self._process.stdout
        word, value = self._process.stdout.readline().split()
        assert word == expected
        return value


@contextmanager
def _traced(pid: int, options: Sequence[str]) -> Iterator[None]:
    # not into a pipe: one that nobody reads is full after 64 KiB, and stops the traced for good
    command = ["strace", "-qq", "-o", os.devnull, *options, "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    with _killed_in_the_end(tracer):
        while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            assert tracer.poll() is None, "strace could not attach"
        yield
        tracer.wait(20)


@contextmanager
def _killed_in_the_end(process: "subprocess.Popen[Any]") -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
