"""The confined file system on a real disk: the attacks of the threat model, atomic writes, modes and owners."""

import contextlib
import errno
import itertools
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.adapters import confined_files as adapter
from teg.adapters.confined_files import ConfinedFiles, gateway_own_paths
from teg.domain.errors import Refused, Unavailable
from teg.domain.files.definitions import MAX_FILE_BYTES
from teg.domain.files.ports import FileStore

SECRET = b"outside, must stay as it is"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away or make devices")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(SECRET)
    return outside


@pytest.fixture
def store(root: Path) -> FileStore:
    """Typed as the port: that the adapter keeps its shape is checked by mypy."""
    return ConfinedFiles([root])


@pytest.fixture(autouse=True)
def nothing_outside_changes(outside: Path) -> Iterator[None]:
    before = (outside / "victim").stat()
    yield
    assert [path.name for path in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_bytes() == SECRET
    after = (outside / "victim").stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


def refused_everywhere(store: FileStore, path: Path | str) -> None:
    """Reading is an attack as well: FILE_READ_ would carry the bytes to the server."""
    with pytest.raises(Refused):
        store.look(str(path))
    with pytest.raises(Refused):
        store.write(str(path), b"evil")
    with pytest.raises(Refused):
        store.remove(str(path))


# --- the twelve attacks ------------------------------------------------------------------------------------------


def test_attack_1_parent_components(store: FileStore, root: Path) -> None:
    refused_everywhere(store, f"{root}/../outside/victim")


def test_attack_2_an_absolute_path_elsewhere(store: FileStore, outside: Path) -> None:
    refused_everywhere(store, outside / "victim")


def test_attack_3_a_link_in_place_of_the_file(store: FileStore, root: Path, outside: Path) -> None:
    (root / "cfg").symlink_to(outside / "victim")
    refused_everywhere(store, root / "cfg")


def test_attack_4_a_link_in_place_of_a_folder(store: FileStore, root: Path, outside: Path) -> None:
    (root / "sub").symlink_to(outside)
    refused_everywhere(store, root / "sub" / "victim")
    refused_everywhere(store, root / "sub" / "deeper" / "new")


def swapping(root: Path, outside: Path, what: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a link in place of the folder or the file just before the `step`-th system call from now on."""
    calls = 0

    def swap() -> None:
        if what == "folder":
            (root / "sub").rename(root / "moved")
            (root / "sub").symlink_to(outside)
        else:
            (root / "sub" / "victim").unlink(missing_ok=True)
            (root / "sub" / "victim").symlink_to(outside / "victim")

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step + 1:
                monkeypatch.undo()
                swap()
            return real(*args, **kwargs)

        return call

    for name in ("open", "stat", "mkdir", "fsync", "rename", "fchmod", "write", "fstat", "read"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


@pytest.mark.parametrize("step", range(24))
@pytest.mark.parametrize("what", ["folder", "file"])
@pytest.mark.parametrize("access", ["look", "write", "remove"])
def test_attack_5_a_link_put_there_at_any_moment(
    store: FileStore, root: Path, outside: Path, access: str, what: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swap before the n-th system call, for every n: the walk holds descriptors, not names."""
    (root / "sub").mkdir()
    (root / "sub" / "victim").write_bytes(b"inside")
    path = str(root / "sub" / "victim")
    swapping(root, outside, what, step, monkeypatch)
    with contextlib.suppress(Refused, Unavailable):
        if access == "write":
            store.write(path, b"evil")
        elif access == "remove":
            store.remove(path)
        elif seen := store.look(path):
            assert seen.content == b"inside"


def test_attack_5_hammered(store: FileStore, root: Path, outside: Path) -> None:
    """Somebody swaps the folder for a link, and back, all the time."""
    real, link = root / "real", root / "link"
    real.mkdir()
    link.symlink_to(outside)
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            for one, other in ((real, root / "sub"), (root / "sub", real), (link, root / "sub"), (root / "sub", link)):
                with contextlib.suppress(OSError):
                    one.rename(other)

    thread = threading.Thread(target=hammer)
    thread.start()
    written, deadline_s = 0, time.monotonic() + 60
    try:
        for attempt in itertools.count():  # at least 200 times, and until one of them met the folder
            if attempt >= 200 and (written or time.monotonic() > deadline_s):
                break
            with contextlib.suppress(Refused, Unavailable):
                store.write(str(root / "sub" / "victim"), b"evil")
                written += 1
    finally:
        stop.set()
        thread.join()
    assert written, "some writes met the folder"


def test_attack_6_a_hard_link(store: FileStore, root: Path, outside: Path) -> None:
    os.link(outside / "victim", root / "cfg")
    refused_everywhere(store, root / "cfg")
    (root / "cfg").unlink()


def test_attack_7_a_fifo_does_not_block(store: FileStore, root: Path) -> None:
    os.mkfifo(root / "cfg")
    refused_everywhere(store, root / "cfg")
    refused_everywhere(store, root / "cfg" / "below")


@as_root
def test_attack_8_a_device(store: FileStore, root: Path) -> None:
    os.mknod(root / "cfg", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    refused_everywhere(store, root / "cfg")


def test_attack_8_a_socket(store: FileStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("cfg")
        refused_everywhere(store, root / "cfg")


def test_attack_9_a_folder(store: FileStore, root: Path) -> None:
    (root / "cfg").mkdir()
    refused_everywhere(store, root / "cfg")
    (root / "file").write_bytes(b"")
    refused_everywhere(store, root / "file" / "below")


def test_attack_10_too_large(store: FileStore, root: Path) -> None:
    store.write(str(root / "cfg"), b"x" * MAX_FILE_BYTES)
    with pytest.raises(Refused, match="more than the limit"):
        store.write(str(root / "cfg"), b"y" * (MAX_FILE_BYTES + 1))
    assert (root / "cfg").read_bytes() == b"x" * MAX_FILE_BYTES
    with (root / "huge").open("wb") as huge:
        huge.truncate(adapter.MAX_HASHED_BYTES + 1)
    with pytest.raises(Refused, match="too many to be watched"):
        store.look(str(root / "huge"))


def test_attack_11_the_gateways_own_files(root: Path, tmp_path: Path) -> None:
    program, token = tmp_path / "program", root / "tb_token"
    program.mkdir()
    (root / "gateway.db").write_bytes(b"archive")
    token.write_bytes(b"secret")
    (root / "huey_data").mkdir()
    own = gateway_own_paths(data=root, controller_data=root, program=program, others=[token, root / "queue.db"])
    store = ConfinedFiles([root, program], own)
    names = ("gateway.db", "gateway.db-wal", "tb_token", "huey_data/huey.db", "communication_queue.db", "queue.db-wal")
    for name in names:
        refused_everywhere(store, root / name)
    refused_everywhere(store, program / "gateway.py")
    store.write(str(root / "config.json"), b"the controller's")
    assert (root / "gateway.db").read_bytes() == b"archive"


@as_root
def test_attack_11_the_token_by_another_name(root: Path, tmp_path: Path) -> None:
    """A bind mount gives a file a second name that no rule about names can know."""
    token = tmp_path / "token"
    token.write_bytes(b"secret")
    (root / "innocent").write_bytes(b"")
    if os.system(f"mount --bind {token} {root}/innocent") != 0:
        pytest.skip("no permission to mount")
    try:
        own = gateway_own_paths(data=tmp_path, controller_data=root, program=tmp_path / "p", others=[token])
        refused_everywhere(ConfinedFiles([root], own), root / "innocent")
    finally:
        os.system(f"umount {root}/innocent")


@pytest.mark.parametrize("ending", ["", "/", "/.", "//"])
def test_attack_12_the_root_itself_or_nothing(store: FileStore, root: Path, ending: str) -> None:
    refused_everywhere(store, f"{root}{ending}")
    refused_everywhere(store, "")


def test_a_root_that_becomes_a_link_later_is_refused(root: Path, outside: Path) -> None:
    store = ConfinedFiles([root])
    root.rmdir()
    root.symlink_to(outside)
    refused_everywhere(store, root / "victim")


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
