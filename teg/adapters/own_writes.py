"""What this process and its children have written to disks, as the kernel counts it."""

import os
import re
from contextlib import suppress
from pathlib import Path

_FIELD = re.compile(rb"^(write_bytes|cancelled_write_bytes): (\d+)$", re.MULTILINE)


class OwnWrites:
    """Bytes that had to be written to a disk for us (`write_bytes` of proc(5), less what was taken back).

    A child that has ended counts with what it was last seen to have written.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._seen: dict[str, int] = {}

    def written_bytes(self) -> int | None:
        """Since the processes began; None where the kernel does not tell."""
        own = str(os.getpid())
        for pid in [own, *self._children(own)]:
            with suppress(OSError):
                self._seen[pid] = _written((self._proc / pid / "io").read_bytes())
        return sum(self._seen.values()) if own in self._seen else None

    def _children(self, pid: str) -> list[str]:
        found: list[str] = []
        for path in (self._proc / pid / "task").glob("*/children"):
            with suppress(OSError):
                found += path.read_text().split()
        return found


def _written(text: bytes) -> int:
    fields = {name: int(value) for name, value in _FIELD.findall(text)}
    return fields[b"write_bytes"] - fields.get(b"cancelled_write_bytes", 0)
