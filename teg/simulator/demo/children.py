"""The demo's child processes: each in a session of its own, so that Ctrl-C reaches the demo alone."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_S = 30.0


class ChildFailed(Exception):  # noqa: N818
    """A child does not do what the demo needs; the message has its last lines."""

    def __init__(self, child: "Child", what: str) -> None:
        super().__init__(f"{child.name} {what}; its last lines:\n{child.last_lines()}")


class Child:
    """Runs from construction until `stop`. Standard output goes to `<name>.out`, standard error to `<name>.log`."""

    def __init__(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str], logs: Path, directory: Path
    ) -> None:
        self.name = name
        self.output = logs / f"{name}.out"
        self.log = logs / f"{name}.log"
        with self.output.open("wb") as output, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise ChildFailed when it does not run any more."""
        status = self._process.poll()
        if status is not None:
            raise ChildFailed(self, f"ended by itself with status {status}")

    def first_line(self) -> str:
        """Of its standard output; empty until there is a whole one."""
        line, newline, _ = self.output.read_text(errors="replace").partition("\n")
        return line if newline else ""

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
        return self._process.returncode

    def last_lines(self, count: int = 15) -> str:
        """Of its log, or of its output when it logged nothing; indented."""
        text = self.log.read_text(errors="replace") or self.output.read_text(errors="replace")
        return "\n".join(f"    {line[:300]}" for line in text.splitlines()[-count:]) or "    (it wrote nothing)"
