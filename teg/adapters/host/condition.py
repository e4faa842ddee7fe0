"""How the machine itself is: clock, power, card, memory, and how long a write takes. Reads only, but for one probe.

Sources: adjtimex(2), Documentation/ABI/testing/sysfs-class-mmc (life_time), the Raspberry Pi's firmware interface.
"""

import ctypes
import os
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from teg.domain.errors import Unavailable

#: adjtimex: the kernel's clock is not synchronised.
STA_UNSYNC = 0x0040
_TIMEX_STATUS_OFFSET = 40 if ctypes.sizeof(ctypes.c_long) == 8 else 20
_TIMEX_BYTES = 256

#: The firmware's bits: now, and since the start of the machine.
UNDERVOLTAGE_NOW, UNDERVOLTAGE_SEEN = 1 << 0, 1 << 16
THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"

WRITES = 5
VERSION_DEADLINE_S = 10.0


def clock_is_synchronised() -> bool | None:
    """What the kernel knows of it; None where it does not say (some containers)."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
        return None
    status = ctypes.c_int.from_buffer(buffer, _TIMEX_STATUS_OFFSET).value
    return not status & STA_UNSYNC


def write_ms(directory: Path) -> float:
    """The slowest of a few small synchronous writes, in a file that has no name; raises Unavailable."""
    slowest_s = 0.0
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            for _ in range(WRITES):
                started_s = time.monotonic()
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
                slowest_s = max(slowest_s, time.monotonic() - started_s)
    except OSError as error:
        raise Unavailable(error.strerror or str(error)) from error
    return slowest_s * 1000


def card_wear_percent(sys: Path = Path("/sys")) -> int | None:
    """The worst of the cards' own estimates, in steps of 10; None where no card tells (most SD cards)."""
    found = []
    for path in sys.glob("block/mmcblk*/device/life_time"):
        with suppress(OSError, ValueError):
            found += [int(word, 16) * 10 for word in path.read_text().split()]
    return max((percent for percent in found if percent), default=None)


def undervoltage(sys: Path = Path("/sys")) -> tuple[bool, bool] | None:
    """(now, since the start of the machine); None on a machine that does not tell."""
    try:
        bits = int((sys / THROTTLED).read_text().strip(), 16)
    except (OSError, ValueError):
        return None
    return bool(bits & UNDERVOLTAGE_NOW), bool(bits & UNDERVOLTAGE_SEEN)


def program_version(*command: str) -> str | None:
    """What a program says of its version, on either output; None where there is no such program."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=VERSION_DEADLINE_S, check=False)
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired):
        return "of an unknown version"
    return (said.stdout + said.stderr).strip().splitlines()[0] if said.stdout or said.stderr else ""


def memory_bytes(proc: Path = Path("/proc")) -> tuple[int, int]:
    """(total, available); raises Unavailable."""
    try:
        lines = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        total, available = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError) as error:
        raise Unavailable(f"memory cannot be read: {error}") from error
    return total, available
