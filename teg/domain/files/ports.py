"""What remote files need of a file system, as a Protocol; `teg/adapters/confined_files.py` keeps the promise."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was at one moment.

    `stamp` is what a stat shows and changes with every write; `settled` says that two looks at the same stamp found
    the same bytes (a write within the clock tick of the first look would not change the stamp).
    """

    md5: str
    size: int
    mode: int
    stamp: tuple[int, ...] = ()
    settled: bool = False
    #: None when the file is larger than a remote file can be, or when the bytes were not needed.
    content: bytes | None = field(default=None, compare=False, repr=False)


class FileStore(Protocol):
    """Files inside the allowed folders. Every path is confined again on every call, without following links.

    All methods raise Refused (the path or what lies there can never be a remote file) or Unavailable (try later).
    """

    def look(self, path: str, known: FileState | None = None) -> FileState | None:
        """Return the file, or None when there is none. `known` comes back unread when a stat shows no change."""
        ...

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        """Replace or create the file so that any crash leaves the old or the new one, whole; durable on return.

        Mode and owner of an existing file are kept unless `mode` is given. Missing folders are made.
        """
        ...

    def remove(self, path: str) -> None:
        """Remove the file, durably; nothing there is fine."""
        ...

    def clean(self, path: str) -> None:
        """Remove what an interrupted `write` left beside the file."""
        ...
