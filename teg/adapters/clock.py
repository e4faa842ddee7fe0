"""Time as the operating system tells it: `ports.Clock`."""

import time
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Made by systemd-timesyncd when a server has answered (systemd-timesyncd.service(8)); tmpfs, so of this boot.
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")


def clock_is_synchronised() -> bool:
    """True when it is known to be. Others than timesyncd do not tell programs that may not ask the kernel."""
    return SYNCHRONISED.exists()


class SystemClock:
    """Wall clock, seconds since boot (suspended time included), and the kernel's name for this boot."""

    def __init__(self, boot_id_path: Path = BOOT_ID) -> None:
        self._boot_id = self._read(boot_id_path)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """CLOCK_BOOTTIME: it starts at 0 with each boot and goes on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return self._boot_id

    @staticmethod
    def _read(path: Path) -> str:
        """Some sandboxes hide the kernel's name for the boot; then a name of this process's own, never shared."""
        try:
            return path.read_text(encoding="ascii").strip()
        except OSError:
            return f"unknown-boot-{time.time_ns()}"
