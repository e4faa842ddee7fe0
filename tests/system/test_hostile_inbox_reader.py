"""Whatever the controller leaves in the inbox's place: nothing else is touched, and a good file put there flows.

The real reader process, as root and as an ordinary user. Tripwires lie outside of the inbox's directory: a database of
another program with rows of the same shape, and a file that a journal names.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from teg.adapters.inbox import reader
from teg.adapters.inbox.mailbox import Inbox
from teg.domain.backoff import Backoff
from teg.domain.errors import Unavailable
from tests.support import exchanged_names
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


def read_in_the_race(inbox: Inbox, seconds: float) -> int:
    """Everything that is done with an inbox, for so long and until the good file was met, too (within a minute more).

    Returns how many rows were read and deleted.
    """
    read = 0
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s + (0 if read else 60):
        with suppress(Unavailable):
            inbox.delete(rows := inbox.read(None, 10, 1 << 20).rows)
            read += len(rows.ids)
    return read


MODES = ("delete", "wal")
RACES = [
    *(pytest.param(kind, "delete", 1.0, id=f"{kind}-sample") for kind in exchanged_names.BAD),
    pytest.param("hard-link", "wal", 1.0, id="hard-link-wal-sample"),
    *(
        pytest.param(kind, mode, 60.0, id=f"{kind}-{mode}-minute", marks=pytest.mark.torture)
        for kind in exchanged_names.BAD
        for mode in MODES
    ),
]


@pytest.mark.parametrize(("kind", "mode", "seconds"), RACES)
def test_names_that_are_exchanged_all_the_time(
    kind: str,
    mode: str,
    seconds: float,
    place: Path,
    user: int,
    inbox: Inbox,
    wires: Tripwires,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hard link leads past every layer to its file: there the controller is an ordinary account, and the kernel
    lets everybody make second names of root's files. It must get no right through the reader that it has not.
    """
    monkeypatch.setattr(reader, "BETWEEN_STARTS_S", 0.0)
    monkeypatch.setattr(reader, "RETRY", Backoff(first_s=0.0, cap_s=0.0))  # no pauses: every try is an attack
    if kind == "hard-link":
        if os.geteuid():
            pytest.skip("files of another account need root")
        user = USER
        monkeypatch.setattr(reader, "_START", exchanged_names.unprotected_hard_links(reader._START, wires.place.parent))
    with closing(sqlite3.connect(place / hostile.NAME)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute(hostile.PLAIN)
        rows = [(message(n),) for n in range(20_000)]
        connection.executemany("INSERT INTO messages (type, message) VALUES ('m', ?)", rows)
        connection.commit()
    own(place, user)
    wires.before = wires.now()
    with exchanged_names.exchanging(kind, place, wires.place):
        read = read_in_the_race(inbox, seconds)
    assert read, "the good file was met, too"
    flows_again(inbox, place, user)
    assert wires.now() == wires.before
