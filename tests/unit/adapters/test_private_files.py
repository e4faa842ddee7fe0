"""Private files are closed to others and brought out of the controller's sight: once, whole, at any crash point."""

import errno
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from teg import places
from teg.adapters.private_files import bring, is_open_to_others, make_private
from teg.settings import Settings

ROOT = Path(__file__).resolve().parents[3]


def settings_of(both: Path, **more: object) -> Settings:
    names = {"TB_HOST": "h", "TB_PORT": "1", "TEG_DATA_PATH": both, "TEG_CONTROLLER_DATA_PATH": both, **more}
    return Settings.from_environment({name: str(value) for name, value in names.items()})


def start(both: Path, **more: object) -> Path:
    """What a start does with the directories; returns the private one."""
    settings = settings_of(both, **more)
    make_private(settings.data_path)
    bring(settings.former_files, settings.shared_before, settings.data_path)
    return settings.data_path


def inherited(directory: Path) -> Path:
    """As the first version left it after a crash: rows in the log only, and what is the controller's."""
    both = directory / "both"
    both.mkdir()
    with closing(sqlite3.connect(both / "made.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE record (id INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO record VALUES (?)", [(number,) for number in range(100)])
        for ending in ("", "-wal", "-shm"):
            shutil.copyfile(both / f"made.db{ending}", both / f"gateway.db{ending}")
    for path in both.glob("made.db*"):
        path.unlink()
    (both / "tb_access_token").write_text("T1")
    (both / "last_launched_controller_version.txt").write_text("v1")
    (both / "communication_queue.db").write_bytes(b"the controller's")
    (both / "config.json").write_text("{}")
    return both


def assert_brought(both: Path, private: Path) -> None:
    assert sorted(path.name for path in both.iterdir()) == ["communication_queue.db", "config.json"]
    assert (private / "tb_access_token").read_text() == "T1"
    assert (private / "last_launched_controller_version.txt").read_text() == "v1"
    for path in (private, *private.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path
    with closing(sqlite3.connect(private / "gateway.db")) as connection:
        assert connection.execute("SELECT count(*) FROM record").fetchone() == (100,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_references_layout_is_taken_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = inherited(tmp_path)
    with caplog.at_level(logging.WARNING):
        private = start(both)
    assert private == tmp_path / "both-private"
    assert_brought(both, private)
    for name in ("gateway.db", "gateway.db-wal", "tb_access_token"):
        assert f"{both}/{name} was moved: it is {private}/{name} now" in caplog.text


def test_what_the_controller_puts_there_later_is_never_ours(tmp_path: Path) -> None:
    both = inherited(tmp_path)
    private = start(both)
    (private / "tb_access_token").unlink()
    for name in ("tb_access_token", "gateway.db-wal", "gateway.db-journal", "last_launched_controller_version.txt"):
        (both / name).write_text("hostile")
    (both / "communication_queue.db").unlink()
    assert start(both) == private
    assert not (private / "tb_access_token").exists()
    assert not (private / "gateway.db-journal").exists()
    assert (private / "last_launched_controller_version.txt").read_text() == "v1"


class Crash(BaseException):
    """No `except` of the program can hold it, as with SIGKILL."""


class Interposed:
    """Counts the calls that change the disk, and crashes before number `at`. Nothing waits for the disk here."""

    NAMES = ("rename", "unlink", "fsync", "open", "mkdir", "chmod")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, refuse_rename: bool) -> None:
        self.calls, self.at = 0, at
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self._counting(getattr(os, name)))
        self._refuse_rename = refuse_rename

    def _counting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise Crash
            if call.__name__ == "fsync":
                return None
            if self._refuse_rename and call.__name__ == "rename" and "both/" in str(arguments[0]):
                raise OSError(errno.EXDEV, "another file system")
            return call(*arguments, **options)

        return counting


@pytest.mark.parametrize("refuse_rename", [False, True], ids=["renamed", "copied"])
def test_nothing_is_lost_at_any_crash_point(tmp_path: Path, refuse_rename: bool) -> None:
    original = inherited(tmp_path)
    at, crashed = 0, True
    while crashed:
        at += 1
        both = tmp_path / str(at) / "both"
        shutil.copytree(original, both)
        with pytest.MonkeyPatch.context() as patching:
            Interposed(patching, at, refuse_rename)
            try:
                start(both)
                crashed = False
            except Crash:
                pass
        with pytest.MonkeyPatch.context() as patching:
            Interposed(patching, 0, refuse_rename)
            assert_brought(both, start(both))
    assert at > 20


START = """
import sys
from pathlib import Path
from teg.adapters.private_files import bring, make_private
from teg.settings import Settings
both = sys.argv[1]
settings = Settings.from_environment(
    {"TB_HOST": "h", "TB_PORT": "1", "TEG_DATA_PATH": both, "TEG_CONTROLLER_DATA_PATH": both}
)
make_private(settings.data_path)
bring(settings.former_files, settings.shared_before, settings.data_path)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_is_lost_by_a_kill_at_a_system_call(tmp_path: Path) -> None:
    """A sample of the above with a real process, killed by the kernel at every rename."""
    original = inherited(tmp_path)
    at = 0
    while True:
        at += 1
        both = tmp_path / str(at) / "both"
        shutil.copytree(original, both)
        injected = f"inject=rename,renameat,renameat2:signal=KILL:when={at}"
        command = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", "trace=/^rename", "-e", injected]
        environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*command, sys.executable, "-c", START, both], cwd=ROOT, env=environment, timeout=120)
        assert_brought(both, start(both))
        if done.returncode == 0:
            break
    assert at > 5


@pytest.mark.parametrize("name", ["gateway.db", "tb_access_token", "last_launched_controller_version.txt"])
def test_a_link_of_the_controllers_is_not_followed(name: str, tmp_path: Path) -> None:
    both, tripwire = inherited(tmp_path), tmp_path / "shadow"
    tripwire.write_text("secret")
    (both / name).unlink()
    (both / name).symlink_to(tripwire)
    private = start(both)
    assert not os.path.lexists(private / name) and (both / name).is_symlink()
    assert tripwire.read_text() == "secret"


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_stays(kind: str, tmp_path: Path) -> None:
    both = inherited(tmp_path)
    (both / "tb_access_token").unlink()
    os.mkfifo(both / "tb_access_token") if kind == "fifo" else (both / "tb_access_token").mkdir()
    assert not os.path.lexists(start(both) / "tb_access_token")


def test_a_second_name_of_a_file_does_not_lead_to_ours(tmp_path: Path) -> None:
    """Whoever has the other name could go on writing into the token or the database."""
    both = inherited(tmp_path)
    for name in ("tb_access_token", "gateway.db"):
        (both / f"kept-{name}").hardlink_to(both / name)
    private = start(both)
    for name in ("tb_access_token", "gateway.db"):
        assert (private / name).stat().st_nlink == 1
        assert (private / name).stat().st_ino != (both / f"kept-{name}").stat().st_ino


def test_a_swap_during_the_move_gives_the_controller_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, tripwire = inherited(tmp_path), tmp_path / "shadow"
    tripwire.write_text("secret")
    rename = Path.rename

    def swapped_first(source: Path, target: Path) -> Path:
        if source.name == "gateway.db":
            source.unlink()
            source.symlink_to(tripwire)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", swapped_first)
    private = start(both)
    assert not os.path.lexists(private / "gateway.db")
    assert (tripwire.read_text(), tripwire.stat().st_mode & 0o777) == ("secret", 0o644)


def test_nothing_is_overwritten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both, private = inherited(tmp_path), tmp_path / "both-private"
    private.mkdir()
    (private / "tb_access_token").write_text("ours")
    with caplog.at_level(logging.WARNING):
        start(both)
    assert (private / "tb_access_token").read_text() == "ours"
    assert (both / "tb_access_token").read_text() == "T1"
    assert "which is another one" in caplog.text


@pytest.mark.parametrize("kept_in", ["working directory", "program directory"])
def test_a_token_where_the_reference_kept_it_is_moved(
    kept_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("working directory", "program directory"):
        (tmp_path / name).mkdir()
    (tmp_path / kept_in / "tb_access_token").write_text("T1")
    monkeypatch.chdir(tmp_path / "working directory")
    monkeypatch.setattr("teg.settings.PROGRAM", tmp_path / "program directory")
    data = start(tmp_path / "data", TEG_CONTROLLER_DATA_PATH=tmp_path / "controller")
    assert (data / "tb_access_token").read_text() == "T1"
    assert not (tmp_path / kept_in / "tb_access_token").exists()


def test_a_token_of_the_controllers_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "tb_access_token").write_text("hostile")
    monkeypatch.chdir(shared)
    data = start(tmp_path / "data", TEG_CONTROLLER_DATA_PATH=shared)
    assert not (data / "tb_access_token").exists()


def test_a_token_that_was_set_is_left_where_it_is(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("T1")
    start(tmp_path / "data", TEG_CONTROLLER_DATA_PATH=tmp_path / "shared", THINGSBOARD_ACCESS_TOKEN=token)
    assert token.read_text() == "T1"


# --- modes -------------------------------------------------------------------------------------------------------


def test_what_others_could_read_is_closed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    (data / "gateway.db").touch()
    (data / "gateway.db").chmod(0o664)
    (data / "controller").mkdir()
    (data / "controller").chmod(0o2770)
    outside = tmp_path / "outside"
    outside.touch(mode=0o644)
    (data / "link").symlink_to(outside)
    with caplog.at_level(logging.WARNING):
        make_private(data)
    assert data.stat().st_mode & 0o7777 == 0o700
    assert (data / "gateway.db").stat().st_mode & 0o7777 == 0o600
    assert (data / "controller").stat().st_mode & 0o7777 == 0o2770, "the controller's"
    assert outside.stat().st_mode & 0o777 == 0o644
    assert str(data / "gateway.db") in caplog.text
    caplog.clear()
    make_private(data)
    assert caplog.text == ""


def test_an_env_file_that_others_can_read_is_seen(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert not is_open_to_others(path)
    path.touch()
    for mode, is_open in ((0o600, False), (0o640, False), (0o604, True), (0o400, False)):
        path.chmod(mode)
        assert is_open_to_others(path) is is_open


def test_the_record_is_what_settings_look_for(tmp_path: Path) -> None:
    both = inherited(tmp_path)
    assert places.was_brought(start(both), both)
