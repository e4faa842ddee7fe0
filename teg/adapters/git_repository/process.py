"""Running Git so that nothing but its arguments decides what it does, and so that it always ends.

Neither the system's nor a user's configuration is read, and the environment is made anew: of ours, only what names
programs, proxies and the SSH agent passes. Options: git(1), git-config(1).
"""

import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from teg.domain.errors import Refused, Unavailable

LOCAL_DEADLINE_S = 120.0
_PASSED = (
    *("PATH", "HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
_FIXED = {
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TEMPLATE_DIR": "",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "SSH_ASKPASS": "true",
    "GIT_SSH_COMMAND": _SSH,
    "GIT_PROTOCOL_FROM_USER": "0",
}
_CONFIGURATION = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.bigFileThreshold=8m",  # larger files are streamed, not held in memory
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.ssh.allow=always",
    "protocol.git.allow=always",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=no",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "credential.helper=",
    "credential.interactive=never",
    "http.lowSpeedLimit=100",
    "http.lowSpeedTime=60",
)
MAX_FILE_BYTES = 2 << 30
MAX_OUTPUT_BYTES = 32 << 20
_COMPLAINT_BYTES = 16 << 10
_LOOK_S = 0.25
#: Of heap, in a process that reads what somebody else wrote.
MAX_HEAP_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Finished:
    code: int
    data: bytes
    complaint: str

    @property
    def output(self) -> str:
        return self.data.decode(errors="replace")


class Git:
    """`stopping` is asked while Git runs: it is killed, with its children, when the gateway stops.

    `proxy_url` is for remotes by HTTP and HTTPS, unless the environment names one for them.
    """

    def __init__(
        self,
        stopping: Callable[[], bool] = lambda: False,
        local_deadline_s: float = LOCAL_DEADLINE_S,
        proxy_url: str | None = None,
    ) -> None:
        self._proxy = {} if proxy_url is None else {"http_proxy": proxy_url, "https_proxy": proxy_url}
        self._stopping = stopping
        self.local_deadline_s = local_deadline_s

    def run(
        self,
        *arguments: str,
        settings: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        user: User | None = None,
        descriptors: Sequence[int] = (),
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.PIPE,
        deadline_s: float | None = None,
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> Finished:
        """Run `git arguments`, as `user` if given; raises Unavailable when it cannot be run or does not end.

        A file that would grow over `max_file_bytes` ends it by SIGXFSZ.
        """
        options = [part for setting in (*_CONFIGURATION, *settings) for part in ("-c", setting)]
        passed = {**self._proxy, **{name: os.environ[name] for name in _PASSED if name in os.environ}}
        if user is not None:
            passed = {"PATH": passed.get("PATH", os.defpath), "HOME": "/nonexistent"}
        with disk("git cannot be run"):
            process = subprocess.Popen(
                ["git", *options, *arguments],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env={**passed, **_FIXED, **(environment or {})},
                cwd="/",
                umask=0o022,  # the build copies the modes of what it finds: the controller's own users must read it
                pass_fds=descriptors,
                start_new_session=True,
                user=None if user is None else user.uid,
                group=None if user is None else user.gid,
                extra_groups=None if user is None else [],
            )
        _limit(process.pid, max_file_bytes)
        return self._wait(process, self.local_deadline_s if deadline_s is None else deadline_s)

    def _wait(self, process: "subprocess.Popen[bytes]", deadline_s: float) -> Finished:
        end_s = time.monotonic() + deadline_s
        with process, _killed_if_left(process):
            kept = _Output(process)
            while not kept.ended(_LOOK_S):
                if self._stopping():
                    raise Unavailable("the gateway stops")
                if time.monotonic() >= end_s:
                    raise Unavailable(f"git did not finish within {deadline_s:g} s")
            return Finished(process.wait(), bytes(kept.output), kept.complaint.decode(errors="replace"))


class _Output:
    """What a process writes: of its output everything, within a limit, of its complaints the end."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
        self.output, self.complaint = bytearray(), bytearray()

    def ended(self, timeout_s: float) -> bool:
        """Wait a moment for more; raises Refused for more output than anything of ours reads."""
        if not self._pipes:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
            return self._process.poll() is not None
        for pipe in select.select(self._pipes, (), (), timeout_s)[0]:
            data = os.read(pipe.fileno(), 1 << 16)
            if not data:
                self._pipes.remove(pipe)
            elif pipe is self._process.stderr:
                self.complaint = (self.complaint + data)[-_COMPLAINT_BYTES:]
            else:
                self.output += data
        if len(self.output) > MAX_OUTPUT_BYTES:
            raise Refused("the controller repository has too many files, or too large a tag")
        return False


@contextmanager
def _killed_if_left(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """With all its children."""
    try:
        yield
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def _limit(pid: int, max_file_bytes: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has ended already; or it is another user's by now
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
        resource.prlimit(pid, resource.RLIMIT_DATA, (MAX_HEAP_BYTES, MAX_HEAP_BYTES))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


@contextmanager
def disk(what: str) -> Iterator[None]:
    """A failing disk, or a missing program, as `Unavailable`."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{what}: {error}") from error


def require(done: Finished, what: str) -> None:
    if done.code != 0:
        raise Unavailable(f"{what} failed: {last_lines(done)}")


def last_lines(done: Finished) -> str:
    """The lines that name the reason, in one."""
    lines = [line.strip() for line in done.complaint.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-3:]
    return " / ".join(telling)[:500] or f"git ended with code {done.code}"
