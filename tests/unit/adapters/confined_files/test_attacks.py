"""The attacks of the threat model on the confined file system, on a real disk."""

import contextlib
import itertools
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teg.adapters import confined_files as adapter
from teg.adapters.confined_files import ConfinedFiles, gateway_own_paths
from teg.domain.errors import Refused, Unavailable
from teg.domain.files.definitions import MAX_FILE_BYTES
from teg.domain.files.ports import FileStore
from tests.support.confined import as_root, refused_everywhere


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
