"""The controller as a plain process, for the demo and for development: `TEG_CONTROLLER_RUNTIME=process`.

Its "images" are directories: a version built from Git is a copy of the build context, and the command runs inside it.
The process outlives a killed gateway, like a container, and is found again by its number and start time.
"""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.container_profile import Rights
from teg.domain.supervision.runtime import (
    ABSENT,
    Cancelled,
    ImageMissing,
    KeptImage,
    Observation,
    StartFailed,
    image_name,
    plan_removals,
)

POLL_S = 0.1
MAX_OUTPUT_BYTES = 4 << 20
MAX_LOG_LINES = 1_000
MAX_LOG_LINE = 2_000
#: Credentials of the gateway that the inherited environment must not hand to the controller.
_SECRETS = ("THINGSBOARD_PROVISION_DEVICE_KEY", "THINGSBOARD_PROVISION_DEVICE_SECRET")


@dataclass(frozen=True, slots=True)
class _Run:
    """What is written down of the process, to know it again: a number is reused, a number and start time are not."""

    pid: int
    ticks: int
    version: str
    profile: str
    started_ms: int


class ProcessRuntime:
    """Keeps the promise of `ControllerRuntime`, except that it can neither load archives nor pull.

    `own_version` is the name under which the command runs as it is, in the gateway's working directory.
    """

    def __init__(
        self,
        command: str,
        directory: Path,
        *,
        data_path: Path,
        logs_path: Path,
        own_version: str = "local",
        environment: Sequence[str] = (),
    ) -> None:
        self._command = shlex.split(command)
        if not self._command:
            raise Refused("TEG_CONTROLLER_RUNTIME=process needs TEG_CONTROLLER_COMMAND")
        self._directory = directory
        self._data_path = data_path
        self._logs_path = logs_path
        self._own_version = own_version
        self._environment = tuple(environment)
        self._lock = threading.RLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._last_seen: tuple[object, ...] | None = None

    def profile(self) -> str:
        parts = (self._command, str(self._data_path), str(self._logs_path), self._environment)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    # --- the process ---------------------------------------------------------------------------------------

    def observe(self) -> Observation:
        with self._lock:
            run = self._read_run()
            if run is None:
                return ABSENT
            state = self._state(run)
            return Observation(
                exists=True,
                running=state != "",
                paused=state == "T",
                run_id=f"{run.pid}@{run.ticks}",
                version=run.version,
                profile=run.profile,
                started_ms=run.started_ms,
                exit_code=None if state else self._exit_code(run),
            )

    def memory_bytes(self) -> int | None:
        with self._lock:
            run = self._read_run()
            if run is None or not self._state(run):
                return None
            for line in _read(Path(f"/proc/{run.pid}/status")).splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return None

    def loosen(self, rights: Rights) -> None:
        """A process has all of our rights."""

    def prepare(self, version: str) -> None:
        if not self.has_image(version):
            raise ImageMissing(f"version {version} is not on this device")

    def start(self, version: str) -> None:
        with self._lock:
            seen = self.observe()
            if seen.runs(version) and seen.profile == self.profile():
                return
            self.prepare(version)
            self.stop()
            self._launch(version)

    def _launch(self, version: str) -> None:
        program = shutil.which(self._command[0])
        if program is None:
            raise StartFailed(f"the program {self._command[0]!r} of TEG_CONTROLLER_COMMAND is not there")
        own = version == self._own_version and not self._version_path(version).is_dir()
        try:
            for path in (self._directory, self._data_path, self._logs_path):
                path.mkdir(parents=True, exist_ok=True)
            self._output_path.write_bytes(b"")
            with self._output_path.open("ab") as output:  # appending, or `_cut_output` would leave a hole
                self._child = subprocess.Popen(
                    [*self._with_environment(version), program, *self._command[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=None if own else self._version_path(version),
                    umask=0o022,
                    start_new_session=True,
                )
        except OSError as error:
            raise StartFailed(f"the controller's process cannot be started: {error}") from error
        pid = self._child.pid
        self._write_run(_Run(pid, _ticks(pid) or 0, version, self.profile(), time.time_ns() // 1_000_000))

    def _with_environment(self, version: str) -> list[str]:
        """`env` changes what is inherited, so that only the settings read the gateway's environment."""
        removed = [argument for name in _SECRETS for argument in ("-u", name)]
        added = [
            f"TEG_CONTROLLER_DATA_PATH={self._data_path}",
            f"TEG_CONTROLLER_LOGS_PATH={self._logs_path}",
            f"TEG_CONTROLLER_VERSION={version}",
            "PYTHONUNBUFFERED=1",
        ]
        return ["/usr/bin/env", *removed, *added, *self._environment]

    def stop(self, timeout_s: float = 60) -> None:
        with self._lock:
            run = self._read_run()
            if run is None or not self._state(run):
                return
            for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10.0)):
                self._signal(run, number)
                self._signal(run, signal.SIGCONT)
                if self._ended(run, wait_s):
                    return
            raise Unavailable(f"the controller's process {run.pid} could not be stopped")

    def _signal(self, run: _Run, number: int) -> None:
        """To its whole group, which is its own since `start_new_session`."""
        try:
            os.killpg(run.pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise Unavailable(f"the controller's process {run.pid} belongs to somebody else") from error

    def _ended(self, run: _Run, timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        while self._state(run):
            if time.monotonic() >= end_s:
                return False
            time.sleep(POLL_S / 2)
        return True

    def _state(self, run: _Run) -> str:
        """Its state as in /proc (`T` = paused), empty once it has ended."""
        if self._child is not None and self._child.pid == run.pid and self._child.poll() is not None:
            return ""
        if _ticks(run.pid) != run.ticks:
            return ""
        state = _stat(run.pid)[0]
        return "" if state in "ZX" else state

    def _exit_code(self, run: _Run) -> int | None:
        """As a shell has it: 128 + signal. Unknown for a process that a former gateway started."""
        if self._child is None or self._child.pid != run.pid:
            return None
        code = self._child.poll()
        return 128 - code if code is not None and code < 0 else code

    # --- versions ------------------------------------------------------------------------------------------

    def has_image(self, version: str) -> bool:
        return version == self._own_version or self._version_path(version).is_dir()

    def build(self, version: str, context: Path, dockerfile: str, cancelled: Callable[[], bool]) -> None:
        """Copy `context`; a Dockerfile is not needed and not looked at."""
        if not context.is_dir():
            raise Refused(f"the build context {context} is not a directory")
        if cancelled():
            raise Cancelled("cancelled: it is not wanted any more")
        target = self._version_path(version)
        unfinished = target.with_name(target.name + ".new")
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(context, unfinished, symlinks=True)
            shutil.rmtree(target, ignore_errors=True)
            unfinished.rename(target)
        except (OSError, shutil.Error) as error:
            raise Unavailable(f"version {version} cannot be copied to {target}: {error}") from error

    def load_archive(self, version: str, path: Path) -> None:
        raise Refused("TEG_CONTROLLER_RUNTIME=process runs a command and loads no images: assign a Git version")

    def pull(self, version: str, reference: str, cancelled: Callable[[], bool] = lambda: False) -> None:
        raise Refused("TEG_CONTROLLER_RUNTIME=process runs a command and pulls no images: assign a Git version")

    def remove_old_images(self, keep: Collection[str], now_ms: int) -> None:
        for name in plan_removals(map(self._kept, self._versions()), keep, now_ms):
            shutil.rmtree(self._versions_path / name.removesuffix(":latest"), ignore_errors=True)

    def _versions(self) -> list[Path]:
        return [path for path in self._versions_path.glob("*") if path.is_dir()]

    def _kept(self, path: Path) -> KeptImage:
        run = self._read_run()
        in_use = run is not None and self._version_path(run.version) == path
        size = sum(file.lstat().st_size for file in path.rglob("*"))
        return KeptImage(f"{path.name}:latest", int(path.stat().st_mtime * 1000), size, in_use)

    # --- output and changes --------------------------------------------------------------------------------

    def logs(self, lines: int) -> list[str]:
        text = _read(self._output_path)
        return [line[:MAX_LOG_LINE] for line in text.splitlines()[-max(1, min(lines, MAX_LOG_LINES)) :]]

    def wait_for_change(self, timeout_s: float) -> bool:
        end_s = time.monotonic() + timeout_s
        while True:
            self._cut_output()
            seen = self.observe()
            now = (seen.run_id, seen.running, seen.paused)
            before, self._last_seen = self._last_seen, now
            if before is not None and before != now:
                return True
            left_s = end_s - time.monotonic()
            if left_s <= 0 or self._closing.wait(min(POLL_S, left_s)):
                return False

    def close(self) -> None:
        """Ends the process: as a child of the gateway it must not stay behind after Ctrl-C."""
        self._closing.set()
        self.stop(timeout_s=5)
        if self._child is not None:
            self._child.poll()  # ended by another hand: do not leave it a zombie

    def _cut_output(self) -> None:
        """The process appends to the file by itself; emptying it is the only way to bound it."""
        try:
            if self._output_path.stat().st_size > MAX_OUTPUT_BYTES:
                os.truncate(self._output_path, 0)
        except FileNotFoundError:
            return

    # --- files ---------------------------------------------------------------------------------------------

    @property
    def _versions_path(self) -> Path:
        return self._directory / "versions"

    def _version_path(self, version: str) -> Path:
        return self._versions_path / image_name(version).removesuffix(":latest")

    @property
    def _run_path(self) -> Path:
        return self._directory / "running.json"

    @property
    def _output_path(self) -> Path:
        return self._directory / "output.log"

    def _read_run(self) -> _Run | None:
        try:
            return _Run(**orjson.loads(self._run_path.read_bytes()))
        except (FileNotFoundError, NotADirectoryError, TypeError, orjson.JSONDecodeError):
            return None

    def _write_run(self, run: _Run) -> None:
        temporary = self._run_path.with_suffix(".new")
        temporary.write_bytes(orjson.dumps(asdict(run)))
        temporary.replace(self._run_path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; the program's name before may hold blanks and brackets."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(") ")[2].split()


def _ticks(pid: int) -> int | None:
    """When the process started, in the kernel's own units."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else None
