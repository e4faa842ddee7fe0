"""Whatever the controller leaves in the inbox's place: nothing else is touched, and a good file put there flows.

The real reader process, as root and as an ordinary user. Tripwires lie outside of the inbox's directory: a database of
another program with rows of the same shape, and a file that a journal names.
"""

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from teg.adapters.inbox import reader
from teg.adapters.inbox.mailbox import Inbox
from teg.domain.errors import Unavailable
from tests.support import hostile_inboxes as hostile
from tests.support.running import ControllerInbox, message, wait_until

USER = 1234
#: The reader as an ordinary user starts it, for a test that root runs with a Python only root can reach.
AS_USER = f"""
import ctypes, os, sys
sys.path.append(sys.argv.pop(1))
from teg.adapters.inbox.child import main, rehearse
rehearse()
os.setgroups([])
os.setresgid({USER}, {USER}, {USER})
os.setresuid({USER}, {USER}, {USER})
ctypes.CDLL(None).prctl(4, *[ctypes.c_ulong(one) for one in (1, 0, 0, 0)])  # as after an exec: our /proc is ours
main()
"""
#: Beyond the gateway's own bound for a request, and the time that killing takes.
WITHIN_S = 10.0


class Tripwires:
    """What must be the same afterwards."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        connection = sqlite3.connect(place / "other.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(hostile.PLAIN)
        connection.execute("INSERT INTO messages (type, message) VALUES ('m', 'another program''s')")
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(place / f"other.db{suffix}", place / f"kept{suffix}")
        connection.close()
        for suffix in ("", "-wal", "-shm"):
            (place / f"kept{suffix}").rename(place / f"other.db{suffix}")
        (place / "other.db-journal").write_bytes(b"")
        (place / "super-journal").write_text("kept")
        self.before = self.now()

    def now(self) -> dict[str, tuple[bytes, int, int]]:
        """name → content, time of the last change, mode."""
        return {
            path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
            for path in sorted(self.place.iterdir())
        }


@pytest.fixture
def wires(tmp_path: Path) -> Tripwires:
    return Tripwires(tmp_path / "wires")


@pytest.fixture(params=["root", "user"])
def user(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Whose the directory is, and as whom the reader starts."""
    if request.param == "root":
        if os.geteuid():
            pytest.skip("needs root")
        return 0
    if os.geteuid() == 0:
        monkeypatch.setattr(reader, "_START", AS_USER)
        return USER
    return os.geteuid()


@pytest.fixture
def place(tmp_path: Path, user: int) -> Path:
    place = tmp_path / "controller"
    place.mkdir()
    own(place, user)
    return place


def own(place: Path, user: int) -> None:
    for path in (place, *place.rglob("*")):
        os.lchown(path, user, user) if os.geteuid() == 0 else None


@pytest.fixture
def inbox(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """Without the pauses between tries: a file under a number used again is told by its time only."""
    monkeypatch.setattr(reader, "CHANGED_RETRY_S", 0.1)
    inbox = Inbox(place / hostile.NAME)
    yield inbox
    inbox.close()


def use(inbox: Inbox) -> list[str]:
    """Everything that the gateway does with an inbox; returns what it was told."""
    told: list[str] = []

    def read_and_delete() -> None:
        inbox.delete(inbox.read(None, 1000, 1 << 20).rows)

    for step in (inbox.has_rows, inbox.last_heartbeat_ms, read_and_delete):
        began_s = time.monotonic()
        try:
            step()
        except Unavailable as reason:
            told.append(str(reason))
        assert time.monotonic() - began_s < WITHIN_S + 5, "a request has a deadline"  # not a speed: an end
    return told


def flows_again(inbox: Inbox, place: Path, user: int) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(exist_ok=True)
    good = ControllerInbox(place / hostile.NAME)
    good.insert_many(message(number) for number in range(3))
    own(place, user)

    def emptied() -> bool:
        with suppress(Unavailable):
            inbox.delete(inbox.read(None, 1000, 1 << 20).rows)
        return good.count() == 0

    wait_until(emptied, 15, f"a good file in its place flows; trouble: {inbox.trouble}")
    good.close()


#: What is told, where it is not SQLite that finds the words: the operator has to know what to do.
TOLD = {
    "view-without-end": "is a view or carries a trigger",
    "trigger-that-refuses": "is a view or carries a trigger",
    "virtual-table": "is a virtual table",
    "generated-column": "has generated columns",
    "partial-index": "an index with an expression",
    "expression-index": "an index with an expression",
    "hundred-indexes": "has 100 indexes",
    "rowids-hidden": "hides the numbers of its rows",
    "other-columns": "has no column 'type'",
    "journal-names-another-file": "names another file to be removed with it",
    "empty-journal-names-another-file": "names another file to be removed with it",
    "pipe-as-the-file": "communication_queue.db is a pipe, not a file",
    "pipe-as-journal": "communication_queue.db-journal is a pipe, not a file",
    "link-as-the-file": "communication_queue.db is a symbolic link, not a file",
    "link-as-wal": "communication_queue.db-wal is a symbolic link, not a file",
    "hard-link-as-the-file": "has 2 names: it may be another program's file",
    "device-zero-as-the-file": "is a device or socket, not a file",
    "directory-as-the-file": "is a directory, not a file",
    "link-to-a-device": "is a symbolic link, not a file",
}
HARMLESS = ("upper-case", "utf16", "page-size-65536", "foreign-keys", "costly-check", "rowid-is-text", "wrong-types")
#: As an ordinary user those where it may make a difference who looks; a schema does not care.
CASES = [
    *((name, "root") for name in hostile.PLANTS),
    *((name, "user") for name in hostile.PLANTS if "-as" in name or "journal" in name or "link" in name),
]


@pytest.mark.parametrize(("name", "user"), CASES, indirect=["user"])
def test_a_hostile_inbox(name: str, place: Path, user: int, inbox: Inbox, wires: Tripwires) -> None:
    hostile.plant(name, place, wires.place)
    own(place, user)
    wires.before = wires.now()
    told = use(inbox)
    assert all("\n" not in reason and len(reason) < 2000 for reason in told)
    assert TOLD.get(name, "") in " ".join(told)
    if name in HARMLESS:
        assert told == []
        assert not inbox.has_rows()
    assert wires.now() == wires.before
    flows_again(inbox, place, user)
    assert wires.now() == wires.before


def test_a_plain_hot_journal_is_rolled_back(place: Path, user: int, inbox: Inbox) -> None:
    """What a controller without WAL leaves at a power cut: its rows before the transaction, whole."""
    connection = sqlite3.connect(place / hostile.NAME, isolation_level=None)
    connection.execute(hostile.PLAIN)
    connection.executemany("INSERT INTO messages (type, message) VALUES ('m', ?)", [(message(n),) for n in range(50)])
    connection.execute("PRAGMA cache_size=2")
    connection.execute("BEGIN")
    connection.execute("UPDATE messages SET message = message || printf('%.*c', 3000, 'x')")
    left = {path.name: path.read_bytes() for path in place.iterdir()}
    connection.execute("ROLLBACK")
    connection.close()
    assert set(left) == {hostile.NAME, f"{hostile.NAME}-journal"}
    for name, data in left.items():
        (place / name).write_bytes(data)
    own(place, user)
    assert [record.message for record in inbox.read(None, 100, 1 << 20).records] == [message(n) for n in range(50)]


def test_a_lease_on_the_file_holds_up_the_reader_only(place: Path, user: int, inbox: Inbox) -> None:
    ControllerInbox(place / hostile.NAME).close()
    own(place, user)
    with hostile.leased(place / hostile.NAME):
        assert "the reader was killed" in use(inbox)[0]
    flows_again(inbox, place, user)


def test_the_directory_may_be_a_link_from_the_beginning(tmp_path: Path, wires: Tripwires) -> None:
    (wires.place / "other.db").rename(wires.place / hostile.NAME)
    wires.before = wires.now()
    (tmp_path / "controller").symlink_to(wires.place)
    inbox = Inbox(tmp_path / "controller" / hostile.NAME)
    with pytest.raises(Unavailable, match=r"'controller' in .* is a link or no directory"):
        inbox.has_rows()
    assert wires.now() == wires.before


# --- files that are exchanged between looking and opening


def exchanges(place: Path, wires: Path) -> Iterator[Callable[[], None]]:
    """Two things for one name in turn: what is allowed, and what is not."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        target, other = place / (hostile.NAME + suffix), place / f"other{suffix}"
        yield lambda target=target, other=other: exchange(target, other)  # type: ignore[misc]


def exchange(one: Path, two: Path) -> None:
    spare = one.with_name("spare")
    for source, target in ((one, spare), (two, one), (spare, two)):
        with suppress(FileNotFoundError):
            source.rename(target)


def race(inbox: Inbox, place: Path, wires: Tripwires, seconds: float) -> int:
    """Exchange names as fast as this machine can while the inbox is used; returns how often something was read."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for step in exchanges(place, wires.place):
                step()

    thread = threading.Thread(target=swap)
    thread.start()
    read = 0
    until_s = time.monotonic() + seconds
    try:
        while time.monotonic() < until_s:
            inbox._file._trouble.over()  # no pauses: every try is an attack
            with suppress(Unavailable):
                inbox.delete(rows := inbox.read(None, 10, 1 << 20).rows)
                read += len(rows.ids)
    finally:
        stop.set()
        thread.join()
    return read


def lasting(found: dict[str, tuple[bytes, int, int]], kind: str) -> dict[str, tuple[bytes, int, int]]:
    """A hard link made by somebody who may write the file leads to it past every layer. SQLite maps the index of a log
    (-shm) in the moment in which it opens it; that is scratch, which every program makes anew. Everything else counts.
    """
    return {name: one for name, one in found.items() if not (kind == "hard-link" and name.endswith("-shm"))}


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.torture)])
@pytest.mark.parametrize("kind", ["link", "pipe", "hard-link", "device"])
def test_names_that_are_exchanged_all_the_time(
    kind: str, seconds: float, place: Path, user: int, inbox: Inbox, wires: Tripwires, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BETWEEN_STARTS_S", 0.0)
    with sqlite3.connect(place / hostile.NAME) as connection:
        connection.execute(hostile.PLAIN)
        connection.executemany(
            "INSERT INTO messages (type, message) VALUES ('m', ?)", [(message(n),) for n in range(500)]
        )
    connection.close()
    for suffix in ("", "-journal", "-wal", "-shm"):
        other, wire = place / f"other{suffix}", wires.place / f"other.db{suffix}"
        if kind == "link":
            other.symlink_to(wire)
        elif kind == "pipe":
            os.mkfifo(other)
        elif kind == "hard-link":
            os.link(wire, other)
        else:
            os.mknod(other, 0o20666, os.makedev(1, 5))
    own(place, user) if kind != "hard-link" else None
    wires.before = wires.now()
    race(inbox, place, wires, seconds)
    inbox._file._trouble.over()
    flows_again(inbox, place, user)
    assert lasting(wires.now(), kind) == lasting(wires.before, kind)
