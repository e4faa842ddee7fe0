"""Which paths a remote file may have: inside one of the roots, and never the gateway's own files.

Pure and lexical; `teg/adapters/confined_files.py` then walks the path without following a single link.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from teg.domain.errors import Refused


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that remote files may live in: as it was configured, and with its links resolved once at start."""

    configured: str
    resolved: str


@dataclass(frozen=True, slots=True)
class Place:
    """A file as a root and the names of the folders below it; `name` is the last of `parts`."""

    root: Root
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.parts[-1]

    @property
    def path(self) -> str:
        return "/".join((self.root.resolved.rstrip("/"), *self.parts))


def locate(path: str, roots: Sequence[Root], protected: Sequence[str]) -> Place:
    """Return where `path` lies, or refuse it. `protected` are glob patterns of resolved paths.

    Raises:
        Refused: not absolute, a `..` in it, outside every root, a root itself, or one of the gateway's own files.
    """
    place = _inside_a_root(_parts(path), path, roots)
    candidate = place.root.resolved.rstrip("/")
    for part in ("", *place.parts):
        candidate = f"{candidate}/{part}" if part else candidate
        if any(_matches(candidate, pattern) for pattern in protected):
            raise Refused(f"{path} belongs to the gateway itself and is never a remote file")
    return place


def _matches(candidate: str, pattern: str) -> bool:
    """A `*` stands for a part of one name, never for a folder."""
    return candidate.count("/") == pattern.count("/") and fnmatchcase(candidate, pattern)


def gateway_own_paths(
    *, data_path: str, controller_data_path: str, program_path: str, others: Sequence[str] = ()
) -> tuple[str, ...]:
    """Glob patterns of everything that the gateway lives from: databases, token, queue and program.

    All arguments are resolved paths. The controller's data folder may be the gateway's own (the reference's default).
    The program's folder is closed as a whole; a root somewhere below it was chosen by the operator and is open.
    `others` are files and folders anywhere, each with what SQLite and editors put beside it (`token`, `queue.db-wal`).
    """
    own = [f"{glob.escape(data_path)}/{name}" for name in (*_INBOX, *_DATA)]
    own += [f"{glob.escape(controller_data_path)}/{name}" for name in _INBOX]
    own += [glob.escape(program_path), *(f"{glob.escape(program_path)}/{name}" for name in _PROGRAM)]
    own += [f"{glob.escape(other)}{ending}" for other in others for ending in ("", "[-.~]*")]
    return tuple(own)


_INBOX = ("communication_queue.db*",)
_DATA = (
    "gateway.db*",
    "gateway_archive.db*",
    "gateway_logs_buffer.db*",
    "huey_data",
    "quarantine",
    "ota",
    "controller_process",
    "tb_access_token*",
    "last_launched_controller_version.txt",
    "queue_name",
    ".env",
)
_PROGRAM = (
    "*.py",
    "*.toml",
    ".env*",
    ".git",
    ".venv",
    "controller_client",
    "huey_data",
    "producers",
    "tasks",
    "teg",
)


def _parts(path: str) -> tuple[str, ...]:
    if "\0" in path or not path.startswith("/"):
        raise Refused(f"{path!r} is not an absolute path: begin it with $DATA_PATH")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Refused(f"{path!r} contains '..'")
    if len(path) > 4000 or any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts):
        raise Refused("the path is too long")
    if not path.isprintable():
        raise Refused(f"{path!r} contains characters that cannot be printed")
    return parts


def _inside_a_root(parts: tuple[str, ...], path: str, roots: Sequence[Root]) -> Place:
    for root in sorted(roots, key=lambda root: len(root.configured), reverse=True):
        for spelling in (root.configured, root.resolved):
            start = tuple(part for part in spelling.split("/") if part)
            if parts[: len(start)] == start and len(parts) > len(start):
                return Place(root, parts[len(start) :])
    allowed = ", ".join(root.configured for root in roots) or "none"
    raise Refused(f"{path!r} is not inside a folder that remote files may live in (TEG_FILE_ROOTS: {allowed})")
