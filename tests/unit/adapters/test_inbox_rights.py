"""With whose rights the inbox is read: never with more than those have who can make names in its directory."""

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from teg.adapters.inbox import reader, rights
from teg.adapters.inbox.mailbox import Inbox
from teg.adapters.inbox.rights import NOBODY, Rights, rights_of_root, rights_of_user
from teg.domain.errors import Unavailable
from tests.support import exchanged_names
from tests.support import hostile_inboxes as hostile
from tests.support.running import message

ROOT, PI, TEG = 0, 1000, 997
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="making files of other accounts needs root")


def status(user: int, group: int, mode: int, kind: int = stat.S_IFDIR) -> os.stat_result:
    return os.stat_result((kind | mode, 1, 1, 1, user, group, 0, 0, 0, 0))


def file_of(user: int, group: int) -> os.stat_result:
    return status(user, group, 0o644, stat.S_IFREG)


@pytest.fixture(params=["0", "1", "2", "", "no such file"])
def protected(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(rights, "PROTECTED_HARD_LINKS", tmp_path / "protected_hardlinks")
    if request.param != "no such file":
        (tmp_path / "protected_hardlinks").write_text(f"{request.param}\n")
    return bool(request.param == "1")


#: Directory, file → rights, where the owner of the directory alone makes names in it, or root and the gateway alone.
AS_THEY_ARE = {
    "all root's": (status(ROOT, ROOT, 0o755), file_of(ROOT, ROOT), Rights(ROOT, NOBODY)),
    "no file yet": (status(PI, PI, 0o700), None, Rights(PI, NOBODY)),
    "all an account's": (status(PI, PI, 0o755), file_of(PI, PI), Rights(PI, NOBODY)),
    "an account's, for its private group, too": (status(PI, PI, 0o2770), file_of(PI, PI), Rights(PI, PI)),
    "root's, for its group, too": (status(ROOT, ROOT, 0o2770), file_of(ROOT, ROOT), Rights(ROOT, ROOT)),
    "an account's file in root's directory": (
        status(ROOT, ROOT, 0o755),
        file_of(PI, PI),
        Rights(PI, PI, override=True),
    ),
}
#: Here somebody else can: a second name of any file would do.
BY_THE_KERNEL = {
    "root's file in an account's directory": (
        status(PI, PI, 0o755),
        file_of(ROOT, ROOT),
        Rights(ROOT, ROOT, override=True),
    ),
    "everybody may": (status(ROOT, ROOT, 0o777), file_of(ROOT, ROOT), Rights(ROOT, ROOT)),
    "everybody may, with the sticky bit": (status(ROOT, ROOT, 0o1777), None, Rights(ROOT, ROOT)),
    "everybody but the group may": (status(ROOT, TEG, 0o757), file_of(ROOT, ROOT), Rights(ROOT, NOBODY)),
    "everybody may, and it is an account's file": (
        status(ROOT, ROOT, 0o777),
        file_of(PI, PI),
        Rights(PI, PI, override=True),
    ),
    "a group may": (status(ROOT, TEG, 0o2770), file_of(ROOT, TEG), Rights(ROOT, TEG)),
    "root's group may, who is not root": (status(PI, ROOT, 0o775), file_of(PI, PI), Rights(PI, ROOT)),
}


@pytest.mark.parametrize("case", AS_THEY_ARE)
def test_root_reads_with_the_rights_of_who_makes_the_names(case: str, protected: bool) -> None:
    directory, file, expected = AS_THEY_ARE[case]
    assert rights_of_root(directory, file) == expected


@pytest.mark.parametrize("case", BY_THE_KERNEL)
def test_else_the_kernel_has_to_protect_hard_links(case: str, protected: bool) -> None:
    directory, file, expected = BY_THE_KERNEL[case]
    found = rights_of_root(directory, file)
    if protected:
        assert found == expected
    else:
        assert "fs.protected_hardlinks=1" in found.refusal
        assert (found.user, found.override) == (directory.st_uid, False), "the least there is"


def test_who_is_not_root_has_the_capability_for_others_files_only(protected: bool) -> None:
    own = status(TEG, os.getegid(), 0o2770)
    assert not rights_of_user(own, file_of(TEG, TEG), TEG, True).override
    assert rights_of_user(own, file_of(ROOT, TEG), TEG, True).override
    assert not rights_of_user(own, file_of(ROOT, TEG), TEG, False).override
    assert not rights_of_user(own, file_of(ROOT, TEG), TEG, True).refusal
    others = rights_of_user(status(PI, PI, 0o755), file_of(ROOT, ROOT), TEG, True)
    assert (others.override, bool(others.refusal)) == (protected, not protected)


# --- the real reader, at the worst moments there are

#: What an account does with the names of its own directory, at the moments that no look of ours can cover.
WORST = """
import os
from teg.adapters.inbox import confinement, queue_file
confine, delete = confinement.confine, queue_file.Rows.delete
def exchange(one, two):
    if os.path.exists(two):
        for source, target in ((one, "spare"), (two, one), ("spare", two)):
            os.rename(source, target) if os.path.exists(source) else None
def after_whose_it_is(*given):
    found = confine(*given)
    exchange("communication_queue.db", "good")
    return found
def after_the_last_look(*given):
    exchange("communication_queue.db-journal", "second")
    return delete(*given)
confinement.confine, queue_file.Rows.delete = after_whose_it_is, after_the_last_look
main()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "controller"
    place.mkdir()
    os.chown(place, PI, PI)
    return place


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """A file that the account may read and not write; it is an empty journal and a database to whoever opens it."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "journal").write_bytes(b"")
    good_inbox(tmp_path / "host" / "other.db")
    return tmp_path / "host"


@pytest.fixture
def inbox(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    start = exchanged_names.unprotected_hard_links(reader._START, tmp_path)
    monkeypatch.setattr(reader, "_START", f"{start.removesuffix('; main()')}\n{WORST}")
    inbox = Inbox(place / hostile.NAME)
    yield inbox
    inbox.close()


def good_inbox(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(hostile.PLAIN)
        connection.execute("INSERT INTO messages (type, message) VALUES ('m', ?)", (message(1),))
    connection.close()


def contents(place: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in place.iterdir()}


@AS_ROOT
@pytest.mark.parametrize("first", ["good", "a second name of root's"])
def test_a_journal_that_is_another_file_at_the_first_write(first: str, place: Path, roots: Path, inbox: Inbox) -> None:
    good = place / (hostile.NAME if first == "good" else "good")
    good_inbox(good)
    os.chown(good, PI, PI)
    if first != "good":
        os.link(roots / "other.db", place / hostile.NAME)
    os.link(roots / "journal", place / "second")
    before = contents(roots)
    with suppress(Unavailable):
        inbox.delete(inbox.read(None, 10, 1 << 20).rows)
    assert inbox.trouble
    assert contents(roots) == before


@AS_ROOT
def test_a_refused_directory_is_said_with_the_remedy(place: Path, inbox: Inbox) -> None:
    good_inbox(place / hostile.NAME)
    place.chmod(0o777)
    os.chown(place / hostile.NAME, PI, PI)
    with pytest.raises(Unavailable, match=r"mode 0777\) can be changed by accounts .* fs.protected_hardlinks=1"):
        inbox.has_rows()


@AS_ROOT
@pytest.mark.skipif(not rights.hard_links_are_protected(), reason="the kernel's setting is fs.protected_hardlinks=0")
def test_a_kernel_that_protects_hard_links_makes_none_to_files_that_are_not_the_accounts() -> None:
    """What is relied on where others than the owner can make names: tried, not only read."""
    become = f"import os, sys; os.setgroups([]); os.setresgid(*[{PI}] * 3); os.setresuid(*[{PI}] * 3); "
    with tempfile.TemporaryDirectory() as name:
        place, journal = Path(name) / "place", Path(name) / "journal"
        place.mkdir()
        journal.touch()
        for path, owner in ((place.parent, ROOT), (place, PI)):
            path.chmod(0o755)
            os.chown(path, owner, owner)
        code = f"{become}os.link({str(journal)!r}, {str(place / 'second')!r})"
        refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "[Errno 1] Operation not permitted" in refused.stderr
