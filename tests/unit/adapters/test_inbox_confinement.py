"""Each layer of the reader's confinement, also where another one is missing: tried from inside by a process like it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.inbox import kernel, reader
from teg.adapters.inbox.reader import confinement

PROJECT = Path(__file__).resolve().parents[3]
NAMES = {"namespaces", "own view of files", "no user", "Landlock", "system calls"}

#: What a taken-over reader would try; each answer is a line `what: outcome`.
ATTEMPTS = """
import ctypes, os, signal, socket, sys
sys.path.append({project!r})
from teg.adapters.inbox import confinement, kernel, seccomp
def fails(*_, **__): raise OSError("taken away by the test")
for name in {missing!r}:
    module, _, call = name.rpartition(".")
    setattr({{"kernel": kernel, "seccomp": seccomp, "os": os}}[module], call, fails)
{become}
place = os.open({place!r}, os.O_PATH | os.O_DIRECTORY)
confinement.confine(place, "inbox.db")
def attempt(what, act):
    try:
        act()
    except OSError as error:
        print(f"{{what}}: {{type(error).__name__}}")
    else:
        print(f"{{what}}: done")
attempt("read the secret", lambda: os.open({secret!r}, os.O_RDONLY))
attempt("write the secret", lambda: os.open({secret!r}, os.O_WRONLY))
attempt("remove the secret", lambda: os.unlink({secret!r}))
attempt("climb out", lambda: os.open("../" * 20 + {secret!r}.lstrip("/"), os.O_RDONLY))
attempt("follow a link", lambda: os.open("link", os.O_RDONLY))
attempt("signal the gateway", lambda: os.kill(os.getppid(), 0))
attempt("open a socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("127.0.0.1", 9)))
attempt("start a program", lambda: os.execv("/bin/true", ["true"]))
attempt("read the inbox", lambda: os.open("inbox.db", os.O_RDWR))
attempt("make a log", lambda: os.open("inbox.db-wal", os.O_RDWR | os.O_CREAT, 0o644))
"""
REFUSED = ("read the secret", "write the secret", "remove the secret", "climb out", "follow a link", "start a program")
AS_USER = """
os.setgroups([])
os.setresgid(1234, 1234, 1234)
os.setresuid(1234, 1234, 1234)
ctypes.CDLL(None).prctl(4, *[ctypes.c_ulong(one) for one in (1, 0, 0, 0)])  # as after an exec: our /proc is ours
"""


def outcomes(reachable: Path, user: int, missing: tuple[str, ...]) -> dict[str, str]:
    place, secret = reachable / "place", reachable / "secret"
    place.mkdir()
    secret.write_text("token")
    secret.chmod(0o666)
    (place / "inbox.db").touch()
    (place / "link").symlink_to(secret)
    if os.geteuid() == 0:
        for path in (place, place / "inbox.db"):
            os.chown(path, user, user)
    become = AS_USER if user and os.geteuid() == 0 else ""
    code = ATTEMPTS.format(project=str(PROJECT), missing=missing, become=become, place=str(place), secret=str(secret))
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert secret.read_text() == "token"
    return dict(line.split(": ") for line in done.stdout.splitlines())


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every account can come to: what is refused here is refused by the confinement."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


MISSING: tuple[tuple[str, ...], ...] = (
    (),
    ("kernel.show_only",),
    ("kernel.unshare",),
    ("kernel.landlock",),
    ("seccomp.deny_syscalls",),
    ("kernel.unshare", "os.chroot"),
    ("kernel.unshare", "seccomp.deny_syscalls"),
)
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
CASES = [
    *(pytest.param(0, missing, id=f"root-{','.join(missing)}", marks=AS_ROOT) for missing in MISSING),
    *(pytest.param(1234, missing, id=f"user-{','.join(missing)}") for missing in MISSING),
    # An ordinary user with neither has no layer for files: that is named, not hidden.
    pytest.param(0, ("kernel.unshare", "kernel.landlock"), id="root-neither", marks=AS_ROOT),
]


@pytest.mark.parametrize(("user", "missing"), CASES)
def test_nothing_outside_is_reached(reachable: Path, user: int, missing: tuple[str, ...]) -> None:
    found = outcomes(reachable, user, missing)
    assert (found["read the inbox"], found["make a log"]) == ("done", "done")
    assert [what for what in REFUSED if found[what] == "done"] == []


def test_signals_and_sockets_are_refused(reachable: Path) -> None:
    found = outcomes(reachable, 1234, ("kernel.unshare",))
    assert (found["signal the gateway"], found["open a socket"]) == ("PermissionError", "PermissionError")


def test_a_layer_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = (
        "\nfrom teg.adapters.inbox import kernel"
        "\ndef none(_): raise OSError('the kernel has no Landlock')"
        "\nkernel.landlock = none\nmain()"
    )
    monkeypatch.setattr(reader, "_START", reader._START.replace(" main()", without))
    found = confinement(tmp_path)
    assert set(found) == NAMES
    assert found["Landlock"] == "the kernel has no Landlock"


@pytest.mark.skipif(os.geteuid() != 0 or not kernel.landlock_abi(), reason="needs root and a kernel with all layers")
def test_here_every_layer_is_in_force(tmp_path: Path) -> None:
    assert confinement(tmp_path) == dict.fromkeys(NAMES, "")
