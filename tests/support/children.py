"""The processes that this one has started and that still run."""

import os
from pathlib import Path


def child_pids() -> list[int]:
    """proc(5), /proc/pid/task/tid/children; those that have ended and wait to be collected are left out."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return sorted(pid for pid in found if not _ended(pid))


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def priority_of(pid: int) -> int:
    """Compared with this process."""
    return os.getpriority(os.PRIO_PROCESS, pid) - os.getpriority(os.PRIO_PROCESS, 0)
