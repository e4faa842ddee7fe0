"""One operator's command: no shell, its own session, a hard end, and output that cannot fill the memory.

Everything it started is killed at its end, also what left its process group or its session: the children carry a mark
in their environment that only a process which cleans it on purpose (and is another user's) can lose.
"""

import os
import select
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from teg.domain.errors import Refused, Unavailable
from teg.domain.ports import CommandResult

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MARK = "TEG_COMMAND"
LOOK_S = 0.1
#: From SIGTERM to SIGKILL.
GRACE_S = 1.0
#: A process in uninterruptible sleep cannot be killed; then its worker goes on without it.
BURIAL_S = 5.0
#: Output faster than this much a read, after the first MiB, waits: `yes` must not take a whole core from the gateway.
CHUNK_BYTES = 65_536
UNTHROTTLED_BYTES = 1 << 20
THROTTLE_S = 0.005
#: No core dumps, no file above 1 GiB, no fork bomb (not enforced for root: that one is ended by the time-out).
LIMITS = ("--core=0", "--fsize=1073741824", "--nofile=1024", "--nproc=1024")


class HeadAndTail:
    """Keeps the first and the last half of `cap_bytes`; what is between is only counted."""

    def __init__(self, cap_bytes: int) -> None:
        self._head = bytearray()
        self._head_cap = cap_bytes // 2
        self._tail: deque[bytes] = deque()
        self._tail_cap = cap_bytes - self._head_cap
        self._tail_bytes = 0
        self.total_bytes = 0

    def add(self, chunk: bytes) -> None:
        self.total_bytes += len(chunk)
        room = self._head_cap - len(self._head)
        self._head += chunk[:room]
        if rest := chunk[room:]:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while self._tail_bytes - len(self._tail[0]) >= self._tail_cap:
                self._tail_bytes -= len(self._tail.popleft())

    @property
    def truncated(self) -> bool:
        return self.total_bytes > self._head_cap + self._tail_cap

    def text(self) -> str:
        """Bytes that are no UTF-8 become replacement characters."""
        tail = b"".join(self._tail)[-self._tail_cap :] if self._tail else b""
        left_out = self.total_bytes - len(self._head) - len(tail)
        note = f"\n… [{left_out} bytes left out] …\n".encode() if left_out else b""
        return (bytes(self._head) + note + tail).decode(errors="replace")


def run_command(
    argv: Sequence[str], timeout_s: float, output_cap_bytes: int, stopping: threading.Event, owner: str = ""
) -> CommandResult:
    """Run `argv` to its end or to the time-out, whichever comes first; nothing of it is alive afterwards.

    `owner` names the gateway in the mark, so that its next life finds what this one could not end (`end_leftovers`).

    Raises:
        Refused: there is no such program, or it may not be run.
        Unavailable: the machine has no resources for it, or the gateway stops meanwhile (the command is killed).
    """
    mark = f"{owner}:{uuid.uuid4().hex}"
    output = HeadAndTail(output_cap_bytes)
    process = _start(argv, mark)
    try:
        ending = _follow(process, output, time.monotonic() + timeout_s, stopping)
        if ending != "exited":
            _terminate(process)
    finally:
        kill_all(process, mark)
    _drain(process, output)
    if ending == "stopped":
        raise Unavailable("the gateway is stopping; the command was killed")
    timed_out = ending == "timed out"
    return CommandResult(None if timed_out else process.returncode, output.text(), timed_out, output.truncated)


def end_leftovers(owner: str) -> int:
    """Kill what commands of an earlier life of this gateway left running (it was killed itself); returns how many."""
    wanted = f"{MARK}={owner}:".encode()
    killed = set[int]()
    deadline_s = time.monotonic() + BURIAL_S
    while (alive := _with(lambda process: _is_marked(process, wanted))) and time.monotonic() < deadline_s:
        _kill_all(alive)
        killed.update(alive)
        time.sleep(0.01)
    return len(killed)


def _start(argv: Sequence[str], mark: str) -> "subprocess.Popen[bytes]":
    program = shutil.which(argv[0], path=SEARCH_PATH)
    if program is None:
        raise Refused(f"Running command failed: there is no program '{argv[0][:200]}' that can be run")
    try:
        process = subprocess.Popen(
            [*_limits(), program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(mark),
            umask=0o022,  # not ours: what a command makes is as a shell would make it
            start_new_session=True,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        raise Unavailable(f"Running command failed: {error}") from error
    lower_priority(process.pid)
    return process


def _limits() -> list[str]:
    """Through a program, because code between fork and exec is not safe in a process with threads."""
    prlimit = shutil.which("prlimit", path=SEARCH_PATH)
    return [prlimit, *LIMITS, "--"] if prlimit else []


def _environment(mark: str) -> dict[str, str]:
    """Nothing of the gateway's own environment: it holds secrets."""
    return {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "HOME": "/", MARK: mark}


def lower_priority(pid: int) -> None:
    """Less processor time than the gateway, and the first to go when memory runs out."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, 10)
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000", encoding="ascii")


def _follow(
    process: "subprocess.Popen[bytes]", output: HeadAndTail, deadline_s: float, stopping: threading.Event
) -> str:
    """Read output as it comes; returns 'exited', 'timed out' or 'stopped'. A child's child may hold the pipe open."""
    while not _exited(process):
        if stopping.is_set():
            return "stopped"
        if (left_s := deadline_s - time.monotonic()) <= 0:
            return "timed out"
        _read(process, output, min(LOOK_S, left_s))
        if output.total_bytes > UNTHROTTLED_BYTES:
            stopping.wait(THROTTLE_S)
    return "exited"


def _exited(process: "subprocess.Popen[bytes]") -> bool:
    """Without collecting it: as long as it is there its number, and that of its group, cannot be given to others."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _read(process: "subprocess.Popen[bytes]", output: HeadAndTail, wait_s: float) -> bool:
    assert process.stdout is not None
    poll = select.poll()  # select() cannot watch descriptors above 1023
    poll.register(process.stdout, select.POLLIN)
    ready = poll.poll(wait_s * 1000)
    chunk = os.read(process.stdout.fileno(), CHUNK_BYTES) if ready else b""
    if ready and not chunk:
        time.sleep(min(wait_s, 0.02))  # closed its output and goes on: do not spin
    output.add(chunk)
    return bool(chunk)


def _drain(process: "subprocess.Popen[bytes]", output: HeadAndTail) -> None:
    """What was written before the end; the pipe holds at most 1 MiB, and nobody is left to write more."""
    assert process.stdout is not None
    with process.stdout:
        for _ in range(64):
            if not _read(process, output, 0):
                break


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    """Ask first: many programs tidy up when asked."""
    _signal_group(process.pid, signal.SIGTERM)
    deadline_s = time.monotonic() + GRACE_S
    while time.monotonic() < deadline_s and not _exited(process):
        time.sleep(0.02)


def kill_all(process: "subprocess.Popen[bytes]", mark: str) -> None:
    """Kill the group (the kernel does that in one go, forks included), then all who slipped away, then collect."""
    deadline_s = time.monotonic() + BURIAL_S
    _signal_group(process.pid, signal.SIGKILL)
    while (alive := _members(process.pid, mark)) and time.monotonic() < deadline_s:
        _kill_all(alive)
        time.sleep(0.01)
    with suppress(subprocess.TimeoutExpired):
        process.wait(max(0.1, deadline_s - time.monotonic()))


def _signal_group(leader: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _kill_all(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _members(session: int, mark: str) -> list[int]:
    """Living processes of the session or with the mark."""
    wanted = f"{MARK}={mark}".encode()
    return _with(lambda process: _session(process) == session or _is_marked(process, wanted))


def _with(belongs: Callable[[Path], bool]) -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _alive(entry, belongs)]


def _alive(process: Path, belongs: Callable[[Path], bool]) -> bool:
    try:
        return _fields(process)[0] not in (b"Z", b"X") and belongs(process)
    except (OSError, IndexError):
        return False


def _fields(process: Path) -> list[bytes]:
    """What follows the name in `stat`: state, parent, group, session, …"""
    return (process / "stat").read_bytes().rpartition(b")")[2].split()


def _session(process: Path) -> int:
    return int(_fields(process)[3])


def _is_marked(process: Path, wanted: bytes) -> bool:
    return any(entry.startswith(wanted) for entry in (process / "environ").read_bytes().split(b"\0"))
