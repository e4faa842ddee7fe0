"""Under which rights and limits the controller's container runs: secure unless local configuration loosens it."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from teg.domain.errors import Refused

#: Host programs the reference gateway gives to the controller, where they exist.
REFERENCE_TOOLS = ("/bin/vcgencmd", "/bin/uptime", "/bin/pigs")

_MOUNT = re.compile(r"(/[^:]*):(/[^:]+)(?::(ro|rw))?")
_DEVICE = re.compile(r"(/[^:]+)(?::(/[^:]+))?(?::([rwm]{1,3}))?")


@dataclass(frozen=True, slots=True)
class Mount:
    source: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Device:
    source: str
    target: str
    permissions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerProfile:
    """What `settings.controller_*` say; the server has no say in it.

    Default: no privileges, every capability dropped, limited memory, processes and log size; of the host it sees the
    two directories and what is listed. `privileged` is the profile of the reference gateway.
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

    def fingerprint(self) -> str:
        """Changes when a container made with this profile would differ."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def all_mounts(self) -> tuple[Mount, ...]:
        """Directories, never a single file: SQLite's -wal and -shm would stay behind (reliability of the inbox)."""
        data = Mount(str(self.data_path), "/root/data", read_only=False)
        logs = Mount(str(self.logs_path), "/root/logs", read_only=False)
        tools = [Mount(tool, tool, read_only=True) for tool in REFERENCE_TOOLS if self.privileged and _exists(tool)]
        return (data, logs, *tools, *self.mounts)

    @property
    def network_mode(self) -> str:
        return "host" if self.privileged else self.network


def _exists(path: str) -> bool:
    return Path(path).exists()


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
