"""The name that keeps this gateway's tasks apart from those of others on the same Redis or PostgreSQL."""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

from teg.domain.errors import Unavailable

#: What the boards of our devices call themselves; a copied card in another board is another gateway.
_SERIAL = Path("/sys/firmware/devicetree/base/serial-number")


def queue_name(path: Path) -> str:
    """`teg-` and 16 hexadecimal digits, the same at every start with this file and board.

    The file is random and made at the first start that needs it.

    Raises:
        Unavailable: the disk does not let us read or write it now.
    """
    try:
        own = _read(path) or _write(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be used: {error}") from error
    board = b""
    with suppress(OSError):
        board = _SERIAL.read_bytes()
    return f"teg-{hashlib.sha256(own.encode() + board).hexdigest()[:16]}"


def _read(path: Path) -> str:
    """Empty where there is none, or where a power cut left nothing of it: the queue may be lost at any time."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="ascii", errors="replace").strip()
    return ""


def _write(path: Path) -> str:
    own = secrets.token_hex(16)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(f"{own}\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    return own
