"""Docker's configuration of the controller's container: nothing is granted that its profile does not name."""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker.types import LogConfig
from docker.types import Mount as BindMount

from teg.domain.supervision.container_profile import ControllerProfile, Mount

#: Of each processor that is short, the controller gets half of what everything else gets.
CPU_SHARES = 512
#: What a container without a file system of its own may write, in its own memory.
SCRATCH = {"/tmp": "size=64m,mode=1777", "/run": "size=16m,mode=755", "/var/tmp": "size=16m,mode=1777"}  # noqa: S108

_MISSING_LIMITS = {
    "MemoryLimit": "memory (boot with cgroup_enable=memory)",
    "PidsLimit": "processes",
    "CpuCfsQuota": "processor time",
}
_NO_WRITE_LIMIT = "No blkio throttle.write_bps_device support"


def host_options(
    profile: ControllerProfile, mounts: Sequence[Mount] | None = None, info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`mounts` are the profile's with checked sources; `info` is what the engine says it can do."""
    info = info or {}
    options: dict[str, Any] = {
        "network_mode": profile.network_mode,
        "mounts": [
            BindMount(mount.target, mount.source, type="bind", read_only=mount.read_only)
            for mount in (profile.all_mounts() if mounts is None else mounts)
        ],
        "devices": [f"{d.source}:{d.target}:{d.permissions}" for d in profile.devices],
        "log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "5"}),
        "restart_policy": {"Name": "no"},  # the watchdog is ours: two of them would fight
        "init": profile.init,
        **_limits(profile, info),
        "read_only": profile.read_only,
        "tmpfs": SCRATCH if profile.read_only else {},
    }
    if profile.privileged:
        return options | {"privileged": True}
    return options | {
        "cap_drop": ["ALL"],
        "cap_add": list(profile.capabilities),
        "security_opt": ["no-new-privileges"],
        "group_add": [] if _has_own_accounts(info) else group_of(profile.data_path),
    }


def _limits(profile: ControllerProfile, info: Mapping[str, Any]) -> dict[str, Any]:
    limits: dict[str, Any] = {"cpu_shares": CPU_SHARES}
    if profile.memory_bytes:
        limits |= {"mem_limit": profile.memory_bytes, "memswap_limit": profile.memory_bytes}
    if profile.pids:
        limits["pids_limit"] = profile.pids
    if profile.cpu_percent and info.get("CpuCfsQuota", True):  # the engine refuses what the kernel cannot
        limits["nano_cpus"] = profile.cpu_percent * 10_000_000
    if profile.write_bytes_per_s:
        disks = disks_of(_written(profile, info))
        limits["device_write_bps"] = [{"Path": disk, "Rate": profile.write_bytes_per_s} for disk in disks]
    return limits


def not_limited(profile: ControllerProfile, info: Mapping[str, Any]) -> list[str]:
    """What the profile limits and this engine, its kernel or its disks cannot: for the log."""
    asked = {"MemoryLimit": profile.memory_bytes, "PidsLimit": profile.pids, "CpuCfsQuota": profile.cpu_percent}
    found = [_MISSING_LIMITS[name] for name, limit in asked.items() if limit and info.get(name, True) is False]
    warnings = " ".join(info.get("Warnings") or [])
    if profile.write_bytes_per_s and (_NO_WRITE_LIMIT in warnings or not disks_of(_written(profile, info))):
        found.append("writes to the disk")
    elif profile.write_bytes_per_s and str(info.get("CgroupVersion", "2")) == "1":
        found.append("writes to the disk that go through the kernel's cache (that needs cgroup version 2)")
    if not any("seccomp" in str(option) for option in info.get("SecurityOptions") or ["seccomp"]):
        found.append("system calls (no seccomp)")
    return found


def _written(profile: ControllerProfile, info: Mapping[str, Any]) -> list[Path]:
    root = info.get("DockerRootDir")
    return [profile.data_path, profile.logs_path, *([Path(root)] if root else [])]


def disks_of(paths: Iterable[Path]) -> list[str]:
    """The whole disks that hold `paths`: limits of a partition are not kept. Empty for file systems without one."""
    found: dict[str, None] = {}
    for path in paths:
        with suppress(OSError):
            device = path.stat().st_dev
            entry = Path(os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
            entry = entry.parent if (entry / "partition").exists() else entry
            node = Path("/dev") / entry.name.replace("!", "/")
            if entry.is_dir() and stat.S_ISBLK(node.stat().st_mode):
                found[str(node)] = None
    return list(found)


def _has_own_accounts(info: Mapping[str, Any]) -> bool:
    """With `userns-remap` or a rootless engine a group of the host has no number in the container: no start."""
    options = " ".join(map(str, info.get("SecurityOptions") or ()))
    return "name=userns" in options or "name=rootless" in options


def group_of(path: Path) -> list[str]:
    """Without capabilities even root in the container needs the group of a directory that is not root's."""
    with suppress(OSError):
        return [str(path.stat().st_gid)]
    return []
