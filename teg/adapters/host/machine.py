"""Power, disk, kernel counters and the gateway's own process: `rpc.ports.Machine`."""

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from teg.adapters.host.command import SEARCH_PATH, end_leftovers, run_command
from teg.domain.errors import Unavailable
from teg.domain.ports import EXIT_SIGNAL, CommandResult

POWER_TIMEOUT_S = 30.0

#: Tried in this order; the second works without root where polkit allows it.
POWER: Mapping[str, Sequence[Sequence[str]]] = {
    "reboot": (("reboot",), ("systemctl", "reboot")),
    "shutdown": (("shutdown", "now"), ("systemctl", "poweroff")),
}


class HostMachine:
    """`stopping` ends a running command when the gateway stops."""

    def __init__(
        self,
        data_path: Path,
        stopping: threading.Event,
        power: Mapping[str, Sequence[Sequence[str]]] = POWER,
        proc: Path = Path("/proc"),
    ) -> None:
        self._data_path = data_path
        self._stopping = stopping
        self._power = power
        self._proc = proc

    def reboot(self) -> None:
        """Raises Unavailable with what every attempt said."""
        self._do("reboot")

    def shutdown(self) -> None:
        self._do("shutdown")

    def power_problem(self, action: str) -> str | None:
        if any(_found(argv[0]) for argv in self._power[action]):
            return None
        programs = " nor ".join(f"'{argv[0]}'" for argv in self._power[action])
        return f"there is neither {programs}; a gateway in a container cannot act on its host"

    def exit_gateway(self) -> None:
        """A signal to ourselves: the consumer finishes what runs, then exits."""
        os.kill(os.getpid(), EXIT_SIGNAL)

    def run(self, argv: Sequence[str], timeout_s: float, output_cap_bytes: int = 65_536) -> CommandResult:
        return run_command(argv, timeout_s, output_cap_bytes, self._stopping, str(self._data_path))

    def end_leftover_commands(self) -> int:
        """Call once at start: a killed gateway could not end what it ran."""
        return end_leftovers(str(self._data_path))

    def disk(self) -> tuple[int, int]:
        try:
            usage = shutil.disk_usage(self._data_path)
        except OSError as error:
            raise Unavailable(f"{self._data_path}: {error}") from error
        return usage.total, usage.free

    def sys_info(self) -> dict[str, list[str]]:
        try:
            text = (self._proc / "stat").read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise Unavailable(f"kernel counters cannot be read: {error}") from error
        return {words[0]: words[1:] for words in map(str.split, text.splitlines()) if words}

    def _do(self, action: str) -> None:
        os.sync()  # what the page cache still holds survives, however the machine goes down
        said = []
        for argv in self._power[action]:
            if (program := _found(argv[0])) is None:
                continue
            problem = _attempt([program, *argv[1:]])
            if problem is None:
                return
            said.append(f"{' '.join(argv)}: {problem}")
        raise Unavailable(f"{action} did not work: {'; '.join(said) or 'no such program'}")


def _found(program: str) -> str | None:
    return shutil.which(program, path=SEARCH_PATH)


def _attempt(argv: list[str]) -> str | None:
    """None when it worked, else what went wrong."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=POWER_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else f"exit code {done.returncode} {done.stderr.strip()[:200]}"
