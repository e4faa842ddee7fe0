"""The gateway as the demo's child: in a session of its own, so that Ctrl-C reaches the demo alone."""

import contextlib
import os
import resource
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

STOP_S = 30.0
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
        assert self._process.stdout is not None
        with self._process.stdout as output, path.open("a") as log:
            for line in output:
                log.write(line)
                log.flush()
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

    def kill(self) -> None:
        """SIGKILL, this process alone; returns when it is gone."""
        self._process.kill()
        self._process.wait()

    def refuse_writes(self, refused: bool) -> None:
        """From now on every write of its to a file fails, as on a full disk; pipes and sockets work."""
        hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0 if refused else hard, hard))

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
