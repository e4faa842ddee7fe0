"""An exported archive on a disk or a stick: compressed, whole or not at all, and never loaded as a whole."""

import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from teg.domain.errors import Refused, Unavailable
from teg.domain.telemetry.archive_file import MAX_LINE_BYTES


def write(path: Path, lines: Iterable[bytes]) -> None:
    """It gets its name last, when all of it is on the medium; a former file of this name stays until then.

    Raises:
        Unavailable: the medium does not take it.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as raw:
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as to:
                for line in lines:
                    to.write(line)
            raw.flush()
            os.fsync(raw.fileno())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise Unavailable(f"{path} cannot be written: {error.strerror}") from error


def read(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """Line by line; `progress` hears how many bytes of the file have been read.

    Raises:
        Refused: it is not compressed, is damaged, or has a line longer than any record.
        Unavailable: it cannot be read now.
    """
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as source:
            while line := source.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    raise Refused(f"{path} is damaged: a line without an end")
                progress(raw.tell())
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Refused(f"{path} is damaged or no exported archive: {error}") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
