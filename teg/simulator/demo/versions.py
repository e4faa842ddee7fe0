"""The demo's controller versions: a Git repository with one to start from, a good update and a bad one."""

import shutil
import subprocess
from pathlib import Path

from teg.simulator.demo.places import Places

FIRST, GOOD, BAD = "v1", "v2", "v3"
_PROGRAM = """\
import fcntl
import os
import signal
import sys
import threading

from teg.simulator.example_controller import main


def end_with_the_demo():
    # Its lock is ours when it is gone, also when it was killed.
    with open({lock!r}) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
    os.kill(os.getpid(), signal.SIGTERM)


threading.Thread(target=end_with_the_demo, daemon=True).start()
if {broken}:
    raise SystemExit("the sensor of {version} does not answer")
sys.exit(main(["--account-file", {account!r}, "--interval", "0.5"]))
"""
_AUTHOR = ("-c", "user.name=demo", "-c", "user.email=demo@localhost")


def has_git() -> bool:
    """Without it the demo runs, too; only its updates do not."""
    return shutil.which("git") is not None


def make_versions(places: Places) -> None:
    """Leaves the first version checked out: it is what the gateway starts with."""
    _write(places, FIRST)
    if not has_git():
        return
    _git(places.repository, "init", "--quiet")
    for version in (FIRST, GOOD, BAD):
        _write(places, version)
        _git(places.repository, "add", "--all")
        _git(places.repository, "commit", "--quiet", "--message", version)
        _git(places.repository, "tag", version)
    _git(places.repository, "checkout", "--quiet", FIRST)


def _write(places: Places, version: str) -> None:
    places.program.mkdir(parents=True, exist_ok=True)
    files = {"account": str(places.account_file), "lock": str(places.lock_file)}
    text = _PROGRAM.format(version=version, broken=version == BAD, **files)
    (places.program / "main.py").write_text(f"# version {version}\n{text}")
    (places.program / "Dockerfile").write_text("# a controller of the field is built from here\n")


def _git(directory: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", directory, *_AUTHOR, *arguments], check=True, capture_output=True)
