"""The file system below the allowed roots: every component opened without following links, every write atomic.

The server may name any path and the controller may write in the same folders, so nothing found there is trusted:
each call walks from `/` by directory descriptors (openat with O_NOFOLLOW) and checks what it opened.
"""

import contextlib
import errno
import glob
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from teg.domain.errors import Refused, Unavailable
from teg.domain.files import confinement
from teg.domain.files.confinement import Place, Root
from teg.domain.files.definitions import MAX_FILE_BYTES
from teg.domain.files.ports import FileState

#: Larger files are neither read nor reported; hashing one of this size takes about a second on a Raspberry Pi.
MAX_HASHED_BYTES = 64 << 20
TEMPORARY_PREFIX = ".teg-file-"
#: As the reference gateway's umask leaves it; `mode` in the definition is for files with secrets.
NEW_FILE_MODE = 0o644
NEW_FOLDER_MODE = 0o755

_CHUNK_BYTES = 1 << 18
#: Passes through a folder that may be entered but not listed; only Linux knows it.
_PASS = getattr(os, "O_PATH", os.O_RDONLY)
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: What lies there is of the wrong kind; everything else (full, read-only, no permission, I/O error) may pass.
_WRONG_KIND = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.ENODEV}


class ConfinedFiles:
    """Keeps the promise of `files.ports.FileStore`. Roots are resolved once, here."""

    def __init__(self, roots: Sequence[Path], protected: Sequence[str] = ()) -> None:
        self._roots = tuple(Root(str(root), os.path.realpath(root)) for root in roots)
        self._protected = tuple(protected)

    def look(self, path: str, known: FileState | None = None) -> FileState | None:
        place = self._place(path)
        with _errors(path), contextlib.suppress(FileNotFoundError), _folder(place) as folder:
            found = _stat(place.name, folder)
            _refuse_odd(found, path)
            if known is not None and known.settled and known.stamp == _stamp(found):
                return known
            return self._read(place, folder, known)
        return None

    def write(self, path: str, content: bytes, mode: int | None = None) -> None:
        if len(content) > MAX_FILE_BYTES:
            raise Refused(f"{path}: {len(content)} bytes are more than the limit of {MAX_FILE_BYTES}")
        place = self._place(path)
        with _errors(path), _folder(place, make=True) as folder:
            before = self._before(place, folder)
            _replace(folder, place.name, content, before, mode)

    def remove(self, path: str) -> None:
        place = self._place(path)
        with _errors(path), contextlib.suppress(FileNotFoundError), _folder(place) as folder:
            if self._before(place, folder) is not None:
                os.unlink(place.name, dir_fd=folder)
                _sync_folder(folder)

    def clean(self, path: str) -> None:
        place = self._place(path)
        with _errors(path), contextlib.suppress(FileNotFoundError), _folder(place) as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - of a descriptor, not of a path
                if name.startswith(TEMPORARY_PREFIX) and stat.S_ISREG(_stat(name, folder).st_mode):
                    os.unlink(name, dir_fd=folder)

    def _place(self, path: str) -> Place:
        return confinement.locate(path, self._roots, self._protected)

    def _before(self, place: Place, folder: int) -> os.stat_result | None:
        """What will be replaced, None when there is nothing yet."""
        try:
            found = _stat(place.name, folder)
        except FileNotFoundError:
            return None
        _refuse_odd(found, place.path)
        self._refuse_own(found, place.path)
        return found

    def _read(self, place: Place, folder: int, known: FileState | None) -> FileState:
        with open(os.open(place.name, _READ, dir_fd=folder), "rb", buffering=0) as file:
            opened = os.fstat(file.fileno())
            _refuse_odd(opened, place.path)
            self._refuse_own(opened, place.path)
            if opened.st_size > MAX_HASHED_BYTES:
                raise Refused(f"{place.path}: {opened.st_size} bytes are too many to be watched ({MAX_HASHED_BYTES})")
            return _seen(file.fileno(), opened, known)

    def _refuse_own(self, found: os.stat_result, path: str) -> None:
        """The same file may be reached by another name (a bind mount), so compare what it is, too."""
        for pattern in self._protected:
            for own in glob.iglob(pattern):  # noqa: PTH207 - the patterns are absolute
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(Path(own).stat(), found):
                        raise Refused(f"{path} is a file of the gateway itself")


def gateway_own_paths(
    *, data: Path, controller_data: Path, program: Path, others: Sequence[Path] = ()
) -> tuple[str, ...]:
    """The glob patterns for `protected`: see `teg.domain.files.confinement.gateway_own_paths`."""
    return confinement.gateway_own_paths(
        data_path=os.path.realpath(data),
        controller_data_path=os.path.realpath(controller_data),
        program_path=os.path.realpath(program),
        others=[os.path.realpath(other) for other in others],
    )


@contextlib.contextmanager
def _errors(path: str) -> Iterator[None]:
    """Turn what the operating system says about `path` into our two kinds."""
    try:
        yield
    except OSError as error:
        said = f"{path}: {error.strerror or error}"
        if error.errno in _WRONG_KIND:
            raise Refused(f"{said} (a link, or not what it should be, on the way)") from error
        raise Unavailable(said) from error


@contextlib.contextmanager
def _folder(place: Place, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder that holds `place`; raises FileNotFoundError when it is not there."""
    with contextlib.ExitStack() as opened:

        def enter(name: str, folder: int | None, access: int) -> int:
            descriptor = os.open(name, access | _FOLDER, dir_fd=folder)
            opened.callback(os.close, descriptor)
            return descriptor

        folder = enter("/", None, _PASS)
        for name in _names(place.root.resolved):
            try:
                folder = enter(name, folder, _PASS)
            except FileNotFoundError as error:
                raise Unavailable(f"the folder {place.root.resolved} does not exist") from error
        folder = enter(".", folder, os.O_RDONLY)
        for name in place.parts[:-1]:
            if make:
                _make_folder(name, folder)
            folder = enter(name, folder, os.O_RDONLY)
        yield folder


def _names(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name)


def _make_folder(name: str, parent: int) -> None:
    """The new folder belongs to whoever owns its parent: the controller must be able to use it."""
    try:
        os.mkdir(name, NEW_FOLDER_MODE, dir_fd=parent)
    except FileExistsError:
        return
    made = os.open(name, _FOLDER, dir_fd=parent)
    try:
        os.fchmod(made, NEW_FOLDER_MODE)  # whatever the umask
        if os.geteuid() == 0:
            owner = os.fstat(parent)
            os.fchown(made, owner.st_uid, owner.st_gid)
    finally:
        os.close(made)
    _sync_folder(parent)


def _replace(folder: int, name: str, content: bytes, before: os.stat_result | None, mode: int | None) -> None:
    """Temporary file beside it, fsync, rename, fsync of the folder: a crash leaves the old or the new file."""
    temporary = f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.tmp"
    with open(os.open(temporary, _CREATE, 0o600, dir_fd=folder), "wb", buffering=0) as file:
        try:
            _write_all(file.fileno(), content)
            _keep_owner(file.fileno(), folder, before)
            os.fchmod(file.fileno(), _mode(before, mode))
            os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
    _sync_folder(folder)


def _sync_folder(folder: int) -> None:
    """Make a rename durable. File systems without such a thing (network, FUSE) say EINVAL; then it is theirs to do."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _mode(before: os.stat_result | None, mode: int | None) -> int:
    if mode is not None:
        return mode
    return stat.S_IMODE(before.st_mode) & 0o777 if before else NEW_FILE_MODE


def _keep_owner(descriptor: int, folder: int, before: os.stat_result | None) -> None:
    """A new file belongs to the owner of its folder when we may give it away."""
    if before is None and os.geteuid() != 0:
        return
    wanted = before or os.fstat(folder)
    ours = os.fstat(descriptor)
    if (wanted.st_uid, wanted.st_gid) == (ours.st_uid, ours.st_gid):
        return
    try:
        os.fchown(descriptor, wanted.st_uid, wanted.st_gid)
    except PermissionError as error:
        raise Unavailable(f"cannot keep the owner {wanted.st_uid}:{wanted.st_gid} of the file: {error}") from error


def _stat(name: str, folder: int) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _refuse_odd(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{path} is {_kind(found.st_mode)}, not an ordinary file")
    if found.st_nlink != 1:
        raise Refused(f"{path} has {found.st_nlink} hard links: it may be another file as well")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO"}
    return kinds.get(stat.S_IFMT(mode), "a device or socket")


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)


def _seen(descriptor: int, opened: os.stat_result, known: FileState | None) -> FileState:
    digest = hashlib.md5(usedforsecurity=False)
    small = bytearray()
    size = 0
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if size <= MAX_FILE_BYTES:
            small += chunk
        if size > MAX_HASHED_BYTES:
            break  # it grows while we read; the next look refuses it
    stamp = _stamp(opened)
    md5 = digest.hexdigest()
    return FileState(
        md5=md5,
        size=size,
        mode=stat.S_IMODE(opened.st_mode),
        stamp=stamp,
        settled=known is not None and (known.stamp, known.md5) == (stamp, md5),
        content=bytes(small) if size <= MAX_FILE_BYTES else None,
    )
