"""kill -9 at every system call of an apply, of a trial and of putting back: old or new, never half, no leftovers."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from teg.adapters.confined_files import TEMPORARY_PREFIX
from tests.support.traced_lives import TracedLives

PROJECT = Path(__file__).resolve().parents[2]
CALLS = ("openat", "write", "pwrite64", "fsync", "fdatasync", "renameat", "mkdirat", "unlinkat", "fchmod")
OLD, NEW = b"old " * 1000, b"new " * 2000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]


class Driver(TracedLives):
    def __init__(self) -> None:
        super().__init__("tests.support.file_driver")

    def run(self, folder: Path, *strace: str, online: bool = True) -> int:
        """Apply once in `folder`, traced with these options; returns the wait status of the child."""
        return self.life(f"{folder} {'online' if online else 'offline'}", *strace)


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


class Bench:
    """A fresh device for each crash; `prepared` is copied, so that every one starts from the same state."""

    def __init__(self, folder: Path) -> None:
        self.prepared = folder / "prepared"
        self.folder = folder / "run"
        (self.prepared / "root").mkdir(parents=True)
        self.set(clock=1000.0)

    def set(self, clock: float, **shared: Any) -> None:
        (self.prepared / "clock").write_text(str(clock))
        (self.prepared / "server.json").write_bytes(orjson.dumps(shared))

    def fresh(self) -> Path:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.prepared, self.folder)
        return self.folder

    @property
    def content(self) -> bytes | None:
        path = self.folder / "root" / "sub" / "cfg"
        return path.read_bytes() if path.exists() else None

    @property
    def leftovers(self) -> list[str]:
        return [path.name for path in self.folder.rglob(f"{TEMPORARY_PREFIX}*")]

    def reports(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for line in (self.folder / "reports.jsonl").read_bytes().splitlines():
            merged |= orjson.loads(line)
        return merged


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def count(driver: Driver, bench: Bench, online: bool) -> dict[str, int]:
    """How often each call is made in an undisturbed run."""
    log = bench.prepared.parent / "trace"
    assert driver.run(bench.fresh(), "-e", f"trace={','.join(CALLS)}", "-o", str(log), online=online) == 0
    made = re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE)
    return {call: made.count(call) for call in CALLS if call in made}


def crash_everywhere(driver: Driver, bench: Bench, before: bytes | None, after: bytes | None, online: bool) -> int:
    counts = count(driver, bench, online)
    assert {"write", "pwrite64", "fsync", "fdatasync", "renameat"} <= counts.keys(), counts
    assert bench.content == after
    for call, times in counts.items():
        for when in range(1, times + 1):
            point = f"{call} {when} of {times}"
            inject = f"inject={call}:signal=KILL:when={when}"
            status = driver.run(bench.fresh(), "-e", f"trace={call}", "-e", inject, online=online)
            assert os.WIFSIGNALED(status), f"not killed at {point}"
            assert bench.content in (before, after), f"half a file after {point}"
            assert driver.run(bench.folder, online=online) == 0
            assert bench.content == after, f"not finished after {point}"
            assert bench.leftovers == [], f"left over after {point}"
    return sum(counts.values())


def definition(**fields: Any) -> dict[str, Any]:
    return {"cfg": {"path": "$DATA_PATH/sub/cfg", "write_version": 1} | fields}


def install_old(bench: Bench) -> None:
    (bench.prepared / "root" / "sub").mkdir()
    (bench.prepared / "root" / "sub" / "cfg").write_bytes(OLD)


def test_a_first_write_with_folders(driver: Driver, bench: Bench) -> None:
    bench.set(1000.0, FILES=definition(restart_controller_on_change=True), FILE_CONTENT_cfg=NEW.decode())
    points = crash_everywhere(driver, bench, None, NEW, online=True)
    assert points > 50
    assert bench.reports()["FILE_READ_cfg"] == NEW.decode()


def test_a_replacement_on_trial(driver: Driver, bench: Bench) -> None:
    install_old(bench)
    bench.set(1000.0, FILES=definition(confirm_s=60), FILE_CONTENT_cfg=NEW.decode())
    assert crash_everywhere(driver, bench, OLD, NEW, online=True) > 50


def test_putting_back(driver: Driver, bench: Bench) -> None:
    install_old(bench)
    bench.set(1000.0, FILES=definition(confirm_s=60), FILE_CONTENT_cfg=NEW.decode())
    assert driver.run(bench.fresh()) == 0
    assert bench.content == NEW
    shutil.rmtree(bench.prepared)
    shutil.copytree(bench.folder, bench.prepared)
    bench.set(1061.0)
    assert crash_everywhere(driver, bench, NEW, OLD, online=False) > 30
    assert bench.reports()["FILE_CONFIRM_cfg"].startswith("put back: no answer from the server within 60 s")


def test_without_the_temporary_file_a_crash_would_be_seen(driver: Driver, bench: Bench, tmp_path: Path) -> None:
    """The harness can fail: a plain `open(path, 'w')` leaves half a file at the kill."""
    script = tmp_path / "plain.py"
    script.write_text(f"open({str(tmp_path / 'cfg')!r}, 'wb', buffering=0).write(b'x' * 8000)")
    (tmp_path / "cfg").write_bytes(OLD)
    inject = [
        "strace",
        "-qq",
        "-P",
        str(tmp_path / "cfg"),
        "-e",
        "inject=write:signal=KILL:when=1",
        "-e",
        "trace=write",
    ]
    subprocess.run([*inject, sys.executable, str(script)], stderr=subprocess.DEVNULL, check=False)
    assert (tmp_path / "cfg").read_bytes() not in (OLD, b"x" * 8000)
