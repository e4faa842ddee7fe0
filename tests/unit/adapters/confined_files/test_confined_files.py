"""The confined file system on a real disk: roots, looking, atomic writes, modes and owners."""

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from teg.adapters import confined_files as adapter
from teg.adapters.confined_files import ConfinedFiles
from teg.domain.errors import Refused, Unavailable
from teg.domain.files.definitions import MAX_FILE_BYTES
from teg.domain.files.ports import FileStore
from tests.support.confined import as_root

# --- a root may be a link of the operator's own ------------------------------------------------------------------


def test_links_above_the_root_are_resolved_once(tmp_path: Path, root: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    store = ConfinedFiles([tmp_path / "alias"])
    store.write(str(tmp_path / "alias" / "cfg"), b"x")
    assert (root / "cfg").read_bytes() == b"x"


def test_a_missing_root_may_come(root: Path) -> None:
    root.rmdir()
    store = ConfinedFiles([root])
    with pytest.raises(Unavailable, match="does not exist"):
        store.write(str(root / "cfg"), b"x")
    root.mkdir()
    store.write(str(root / "cfg"), b"x")


# --- looking -----------------------------------------------------------------------------------------------------


def test_a_look_shows_hash_size_mode_and_bytes(store: FileStore, root: Path) -> None:
    (root / "cfg").write_bytes(b"hello")
    (root / "cfg").chmod(0o604)
    seen = store.look(str(root / "cfg"))
    assert seen is not None
    assert (seen.md5, seen.size, seen.mode, seen.content) == ("5d41402abc4b2a76b9719d911017c592", 5, 0o604, b"hello")


def test_no_file_and_no_folder_are_None(store: FileStore, root: Path) -> None:
    assert store.look(str(root / "cfg")) is None
    assert store.look(str(root / "a" / "b" / "cfg")) is None
    store.remove(str(root / "a" / "cfg"))
    store.clean(str(root / "a" / "cfg"))
    assert list(root.iterdir()) == []


def test_a_known_file_is_read_twice_and_then_only_looked_at(store: FileStore, root: Path) -> None:
    path = str(root / "cfg")
    (root / "cfg").write_bytes(b"hello")
    first = store.look(path)
    second = store.look(path, first)
    assert first is not None and second is not None
    assert (first.settled, second.settled) == (False, True)
    assert store.look(path, second) is second
    (root / "cfg").write_bytes(b"other")
    third = store.look(path, second)
    assert third is not None and third.content == b"other" and not third.settled


def test_a_large_file_is_hashed_but_not_kept(store: FileStore, root: Path) -> None:
    (root / "cfg").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    seen = store.look(str(root / "cfg"))
    assert seen is not None and seen.content is None and seen.size == MAX_FILE_BYTES + 1


# --- writing -----------------------------------------------------------------------------------------------------


def test_a_write_makes_folders_and_leaves_nothing_else(store: FileStore, root: Path) -> None:
    store.write(str(root / "a" / "b" / "cfg"), b"x")
    assert [str(path.relative_to(root)) for path in sorted(root.rglob("*"))] == ["a", "a/b", "a/b/cfg"]
    assert (root / "a" / "b" / "cfg").stat().st_mode & 0o777 == adapter.NEW_FILE_MODE
    assert (root / "a").stat().st_mode & 0o777 == adapter.NEW_FOLDER_MODE


def test_mode_is_kept_or_set(store: FileStore, root: Path) -> None:
    (root / "cfg").write_bytes(b"old")
    (root / "cfg").chmod(0o640)
    store.write(str(root / "cfg"), b"new")
    assert (root / "cfg").stat().st_mode & 0o7777 == 0o640
    store.write(str(root / "cfg"), b"new", 0o600)
    assert (root / "cfg").stat().st_mode & 0o7777 == 0o600


def test_no_set_user_id_survives(store: FileStore, root: Path) -> None:
    (root / "cfg").write_bytes(b"old")
    (root / "cfg").chmod(0o4755)
    store.write(str(root / "cfg"), b"new")
    assert (root / "cfg").stat().st_mode & 0o7777 == 0o755


@as_root
def test_owner_is_kept_and_new_files_belong_to_the_owner_of_the_folder(store: FileStore, root: Path) -> None:
    os.chown(root, 1000, 1001)
    (root / "cfg").write_bytes(b"old")
    os.chown(root / "cfg", 1002, 1003)
    store.write(str(root / "cfg"), b"new")
    store.write(str(root / "sub" / "fresh"), b"new")
    found = [path.stat() for path in (root / "cfg", root / "sub", root / "sub" / "fresh")]
    assert [(each.st_uid, each.st_gid) for each in found] == [(1002, 1003), (1000, 1001), (1000, 1001)]


def test_an_owner_that_cannot_be_kept_keeps_the_old_file(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "cfg").write_bytes(b"old")
    real = os.fstat

    def another_owner(descriptor: int) -> Any:
        found = real(descriptor)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:]))

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fstat", another_owner)
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(Unavailable, match="cannot keep the owner"):
        store.write(str(root / "cfg"), b"new")
    assert (root / "cfg").read_bytes() == b"old"
    assert [path.name for path in root.iterdir()] == ["cfg"]


@pytest.mark.parametrize("call", ["write", "fchmod", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_failing_call_keeps_the_old_file_and_removes_the_new_one(
    store: FileStore, root: Path, call: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "cfg").write_bytes(b"old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Unavailable, match=os.strerror(code)):
        store.write(str(root / "cfg"), b"new")
    monkeypatch.undo()
    assert (root / "cfg").read_bytes() == b"old"
    assert [path.name for path in root.iterdir()] == ["cfg"]


def test_the_order_of_a_write_is_the_one_that_survives_power_loss(
    store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, fsync of the file, rename, fsync of the folder: taking any of them out loses the file in a power cut."""
    calls: list[str] = []

    def noted(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            kind = "folder" if name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode) else ""
            calls.append(f"{name} {kind}".strip())
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fchmod", "fsync", "rename"):
        noted(name)
    store.write(str(root / "cfg"), b"new")
    assert calls == ["write", "fchmod", "fsync", "rename", "fsync folder"]


@pytest.mark.parametrize(("code", "fine"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync_folders(
    store: FileStore, root: Path, code: int, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    with contextlib.nullcontext() if fine else pytest.raises(Unavailable):
        store.write(str(root / "cfg"), b"new")
    assert (root / "cfg").read_bytes() == b"new"


@pytest.mark.root
@as_root
def test_a_full_disk_keeps_the_old_file_and_the_next_try_works(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m none {disk}") != 0:
        pytest.skip("no permission to mount")
    try:
        store = ConfinedFiles([disk])
        store.write(str(disk / "cfg"), b"old" * 100_000)
        (disk / "filler").write_bytes(b"x" * 500_000)
        with pytest.raises(Unavailable, match="No space left"):
            store.write(str(disk / "cfg"), b"new" * 150_000)
        assert (disk / "cfg").read_bytes() == b"old" * 100_000
        assert sorted(path.name for path in disk.iterdir()) == ["cfg", "filler"]
        (disk / "filler").unlink()
        store.write(str(disk / "cfg"), b"new" * 150_000)
        assert (disk / "cfg").read_bytes() == b"new" * 150_000
    finally:
        os.system(f"umount {disk}")


def test_short_writes_are_continued(store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    store.write(str(root / "cfg"), b"0123456789")
    assert (root / "cfg").read_bytes() == b"0123456789"


def test_leftovers_are_removed_and_nothing_else(store: FileStore, root: Path) -> None:
    (root / f"{adapter.TEMPORARY_PREFIX}0011.tmp").write_bytes(b"half")
    (root / "cfg").write_bytes(b"x")
    (root / f"{adapter.TEMPORARY_PREFIX}folder").mkdir()
    store.clean(str(root / "cfg"))
    assert sorted(path.name for path in root.iterdir()) == [f"{adapter.TEMPORARY_PREFIX}folder", "cfg"]


def test_descriptors_are_closed(store: FileStore, root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        store.write(str(root / "a" / "cfg"), b"x")
        store.look(str(root / "a" / "cfg"))
        with pytest.raises(Refused):
            store.look(str(root / "a"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
