"""The gateway as the demo's child: in a session of its own, so that Ctrl-C reaches the demo alone."""

import contextlib
import logging
import logging.handlers
import os
import resource
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

STOP_S = 30.0
#: A log starts again when it has this size; the one before is kept.
MAX_LOG_BYTES = 1 << 20
LAST_LINES = 15


class ChildFailed(Exception):  # noqa: N818
    """A child does not do what the demo needs; the message has its last lines."""

    def __init__(self, child: "Child", what: str) -> None:
        super().__init__(f"{child.name} {what}; its last lines:\n{child.last_lines()}")


class Child:
    """Runs from construction until `stop`. What it writes goes to `<name>.log` and, line by line, to `heard`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        logs: Path,
        directory: Path,
        heard: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.name = name
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._heard = heard
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._listen, args=(logs / f"{name}.log",), name=f"{name}-output")
        self._reader.start()

    def _listen(self, path: Path) -> None:
        """Through a pipe, so that a full disk of the child's does not silence it."""
        log = logging.handlers.RotatingFileHandler(path, maxBytes=MAX_LOG_BYTES, backupCount=1)
        assert self._process.stdout is not None
        with self._process.stdout as output, contextlib.closing(log):
            for line in output:
                log.emit(logging.makeLogRecord({"msg": line.rstrip()}))
                self._last.append(line.rstrip())
                self._heard(line.rstrip())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        """Raise ChildFailed when it does not run any more."""
        status = self._process.poll()
        if status is not None:
            self._reader.join(5)
            raise ChildFailed(self, f"ended by itself with status {status}")

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, this process alone; returns when it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self, patience_s: float = STOP_S) -> int | None:
        """SIGTERM, and after `patience_s` SIGKILL for it and its children. Return its exit status; harmless twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._reader.join(5)
        return self._process.returncode

    def last_lines(self) -> str:
        return "\n".join(f"    {line[:300]}" for line in self._last) or "    (it wrote nothing)"


def refuse_writes(pid: int, refused: bool) -> None:
    """From now on every write of that process to a file fails, as on a full disk; pipes and sockets work.

    A process that is gone, or confined so that it has no file to write (the inbox reader), is left alone.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0 if refused else hard, hard))


def descendants(pid: int) -> list[int]:
    """What that process has started, and what these have, as far as it still runs."""
    parents = dict(_parents())
    found = [pid]
    for known in found:  # grows while we walk it
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def _parents() -> Iterator[tuple[int, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
