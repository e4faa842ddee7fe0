"""A large gateway.db is looked through after the start: damage is met before a row that lies on it is wanted."""

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.gateway_db import look_through
from teg.adapters.gateway_db.look_through import LookThrough
from teg.domain.errors import Unavailable
from tests.support.archives import Archive

PAGE, ROWS = 1024, 3000


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "data")
    archive.store(*range(1, ROWS + 1), size=200)
    archive.database.checkpoint()
    yield archive
    archive.close()


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_through, "QUICK_CHECK_BYTES", 100_000)
    monkeypatch.setattr(look_through, "SLICE", 100)


def damage(archive: Archive, page: int) -> None:
    """As a card does it: the file's times stay, and nobody has the page in memory."""
    before = archive.path.stat()
    with archive.path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xa5" * PAGE)
    os.utime(archive.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    archive.database._local = threading.local()


def test_a_sound_file_once(archive: Archive) -> None:
    look = LookThrough(archive.database)
    assert look.due
    look.run(lambda: False)
    assert not look.due


def test_a_small_file_was_looked_through_at_its_opening(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_through, "QUICK_CHECK_BYTES", 1 << 30)
    assert not LookThrough(archive.database).due


def test_a_stop_comes_through_and_it_begins_again(archive: Archive) -> None:
    look = LookThrough(archive.database)
    answers = iter([False, False, True])
    look.run(lambda: next(answers))
    assert look.due


@pytest.mark.parametrize("seed", range(12))
def test_any_page_of_a_table_or_an_index(archive: Archive, seed: int) -> None:
    """But those that only say whose child a page is (every 205th), which nothing reads before the file shrinks."""
    pages = [page for page in range(3, archive.path.stat().st_size // PAGE) if page % 205 != 2]
    damage(archive, random.Random(seed).choice(pages))
    look = LookThrough(archive.database)
    with pytest.raises(Unavailable, match="damaged"):
        look.run(lambda: False)
    archive.salvage.run()
    assert len(archive.numbers()) >= ROWS - 10
    archive.assert_account()


def test_in_pieces(archive: Archive) -> None:
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return False

    LookThrough(archive.database).run(stopping)
    assert asked >= 2 * ROWS // 100, "the rows and their index"


def test_a_file_that_is_away_is_not_looked_through_yet(archive: Archive) -> None:
    """The timetable asks: an error there would end it."""
    look = LookThrough(archive.database)
    archive.path.rename(archive.path.with_name("moved"))
    assert not look.due
    archive.path.with_name("moved").rename(archive.path)
    assert look.due
