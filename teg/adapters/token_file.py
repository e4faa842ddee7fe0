"""The access token on disk: readable by our user only, replaced atomically."""

import logging
import os
import stat
from pathlib import Path

from teg.domain.errors import Refused, Unavailable

logger = logging.getLogger("gateway.token")
MAX_BYTES = 4096


class AccessTokenFile:
    """`server.provisioning.TokenFile`."""

    def __init__(self, path: Path, mend: bool = True) -> None:
        """`mend`: close a file that others can read; a look at it leaves it as it is."""
        self._path = path
        self._mend = mend

    def __str__(self) -> str:
        return f"access token file {self._path}"

    def read(self) -> str | None:
        try:
            with self._path.open("rb") as file:
                self._close_to_others(os.fstat(file.fileno()))
                raw = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(f"token file {self._path} cannot be read: {error.strerror}") from error
        return self._checked(raw)

    def _checked(self, raw: bytes) -> str:
        token = raw.decode("utf-8", "replace").strip()
        if not token:
            raise Refused(f"token file {self._path} is empty")
        odd = not token.isprintable() or "\ufffd" in token or any(character.isspace() for character in token)
        if odd or len(raw) > MAX_BYTES:
            raise Refused(f"token file {self._path} does not hold one access token")
        return token

    def _close_to_others(self, status: os.stat_result) -> None:
        """The reference wrote this file readable by everyone; today's devices are set right, not turned away."""
        if self._mend and stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            try:
                self._path.chmod(0o600)
                logger.warning("token file %s was readable by others; it is not any more", self._path)
            except OSError as error:
                logger.warning("token file %s is readable by others and cannot be closed: %s", self._path, error)

    def write(self, token: str) -> None:
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(token)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            _sync_directory(self._path.parent)
        except OSError as error:
            raise Unavailable(f"token file {self._path} cannot be written: {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
