"""Under which rights and limits the controller's container runs: secure unless local configuration loosens it."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from teg.domain.errors import Refused

#: Host programs the reference gateway gives to the controller, where they exist.
REFERENCE_TOOLS = ("/bin/vcgencmd", "/bin/uptime", "/bin/pigs")
#: Raised when what every container is made of changes, so that all are made anew once.
GENERATION = 2

_MOUNT = re.compile(r"(/[^:]*):(/[^:]+)(?::(ro|rw))?")
_DEVICE = re.compile(r"(/[^:]+)(?::(/[^:]+))?(?::([rwm]{1,3}))?")


@dataclass(frozen=True, slots=True)
class Mount:
    source: str
    target: str
    read_only: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{'ro' if self.read_only else 'rw'}"


@dataclass(frozen=True, slots=True)
class Device:
    source: str
    target: str
    permissions: str

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{self.permissions}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a container of the reference gateway had beyond ours. A limit of 0 is none."""

    privileged: bool = False
    host_network: bool = False
    capabilities: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    mounts: tuple[Mount, ...] = ()
    memory_bytes: int = 0
    pids: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerProfile:
    """What `settings.controller_*` say; the server has no say in it.

    Default: no privileges, every capability dropped, limited memory, processes, processor time, writes and log size; of
    the host it sees the two directories and what is listed. `privileged` is the profile of the reference gateway.
    A limit of 0 is none. `fixed` are fields that the settings name: a container found here does not loosen those.
    """

    data_path: Path
    logs_path: Path
    memory_bytes: int = 512 << 20
    pids: int = 256
    privileged: bool = False
    network: str = "bridge"
    devices: tuple[Device, ...] = ()
    mounts: tuple[Mount, ...] = ()
    environment: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    cpu_percent: int = 0  #: of one processor
    write_bytes_per_s: int = 0
    read_only: bool = False
    user: str = ""
    init: bool = True
    fixed: frozenset[str] = frozenset()

    def fingerprint(self) -> str:
        """Changes when a container made with this profile would differ."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]

    def canonical(self) -> str:
        """One line for each right and limit that is not the default, sorted: a new field changes no container."""
        lines = [f"{field.name}={_text(getattr(self, field.name))}" for field in fields(self) if self._says(field)]
        return "\n".join((f"generation={GENERATION}", *sorted(lines)))

    def _says(self, field: Any) -> bool:
        return field.name != "fixed" and (field.default is MISSING or getattr(self, field.name) != field.default)

    def all_mounts(self) -> tuple[Mount, ...]:
        """Directories, never a single file: SQLite's -wal and -shm would stay behind (reliability of the inbox)."""
        data = Mount(str(self.data_path), "/root/data", read_only=False)
        logs = Mount(str(self.logs_path), "/root/logs", read_only=False)
        listed = {mount.target for mount in self.mounts}
        tools = [
            Mount(tool, tool, read_only=True)
            for tool in REFERENCE_TOOLS
            if self.privileged and tool not in listed and _exists(tool)
        ]
        return (data, logs, *tools, *self.mounts)

    @property
    def network_mode(self) -> str:
        return "host" if self.privileged else self.network

    def loosened(self, rights: Rights) -> "ControllerProfile":
        """With what `rights` has beyond it, and nothing else; what the settings name stays as it is."""
        listed = {mount.target for mount in self.mounts}
        wider: dict[str, Any] = {
            "privileged": self.privileged or rights.privileged,
            "network": "host" if rights.host_network else self.network,
            "capabilities": tuple(sorted({*self.capabilities, *rights.capabilities})),
            "devices": tuple(dict.fromkeys((*self.devices, *rights.devices))),
            "mounts": (*self.mounts, *(mount for mount in rights.mounts if mount.target not in listed)),
            "memory_bytes": _wider(self.memory_bytes, rights.memory_bytes),
            "pids": _wider(self.pids, rights.pids),
        }
        return replace(self, **{name: value for name, value in wider.items() if name not in self.fixed})


def _wider(ours: int, theirs: int) -> int:
    return 0 if 0 in (ours, theirs) else max(ours, theirs)


def _text(value: object) -> str:
    return ",".join(sorted(map(str, value))) if isinstance(value, tuple) else str(value)


def _exists(path: str) -> bool:
    return Path(path).exists()


def describe(rights: Rights) -> str:
    """For the log and the server: what was kept."""
    parts = [
        "all rights (privileged)" if rights.privileged else "",
        "the host's network" if rights.host_network else "",
        _listed("capabilities", rights.capabilities),
        _listed("devices", rights.devices),
        _listed("mounts", rights.mounts),
        "" if rights.memory_bytes else "no limit of memory",
        "" if rights.pids else "no limit of processes",
    ]
    return ", ".join(part for part in parts if part)


def _listed(name: str, values: Iterable[object]) -> str:
    text = " ".join(map(str, values))
    return f"{name} {text}" if text else ""


def encode_rights(rights: Rights) -> dict[str, Any]:
    return asdict(rights)


def parse_rights(stored: Any) -> Rights | None:
    """None for what was not written by `encode_rights`: then nothing is loosened."""
    if not isinstance(stored, Mapping):
        return None
    try:
        return Rights(
            privileged=stored["privileged"] is True,
            host_network=stored["host_network"] is True,
            capabilities=tuple(map(str, stored["capabilities"])),
            devices=tuple(Device(**device) for device in stored["devices"]),
            mounts=tuple(Mount(**mount) for mount in stored["mounts"]),
            memory_bytes=int(stored["memory_bytes"]),
            pids=int(stored["pids"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def parse_mount(text: str) -> Mount:
    """`/host/path:/container/path` with `:ro` or `:rw` (default); raises Refused."""
    if not (match := _MOUNT.fullmatch(text)) or match[2] in ("/", "/root/data", "/root/logs"):
        raise Refused(f"TEG_CONTROLLER_MOUNTS: {text!r} is not /host/path:/container/path[:ro]")
    return Mount(match[1], match[2], read_only=match[3] == "ro")


def parse_device(text: str) -> Device:
    """`/dev/i2c-1`, `/dev/ttyUSB0:/dev/sensor` or with `:r`, `:rw`, `:rwm`; raises Refused."""
    if not (match := _DEVICE.fullmatch(text)):
        raise Refused(f"TEG_CONTROLLER_DEVICES: {text!r} is not /dev/name[:/dev/other][:rwm]")
    return Device(match[1], match[2] or match[1], match[3] or "rwm")
