"""A salvage that was killed before its folder said so, or that runs twice at once, brings nothing twice."""

import threading
from pathlib import Path

import pytest

from teg.adapters.gateway_db import quarantine
from teg.adapters.gateway_db.connections import Damaged
from tests.support.loss_scenarios import a_world
from tests.support.storage_life import compare, produce


def test_killed_between_the_last_row_and_the_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_world(tmp_path, monkeypatch) as world:
        produce(world.folder, [], nonsense=2)
        world.archive(20)
        world.life.patiently(world.life.publish)
        with pytest.raises(Damaged), world.life.database.reading("SELECT 1"):
            raise Damaged("a page that is damaged was read")
        with world.dying_at(quarantine, "salvaged"):
            world.life.salvage()
        world.settle()
        compare(world.folder, world.server, world.produced, set_aside=2)


def test_two_at_once_bring_back_and_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timetable that starts anew asks for it again while it runs; there are two workers."""
    with a_world(tmp_path, monkeypatch) as world:
        world.archive(20)
        with pytest.raises(Damaged), world.life.database.reading("SELECT 1"):
            raise Damaged("a page that is damaged was read")
        keeper, other = world.life.keeper, threading.Thread(target=lambda: None)

        def meanwhile() -> bool:
            """Asked in the middle of the first."""
            nonlocal other
            if other.ident is None:
                other = threading.Thread(target=lambda: keeper.salvage(lambda: False))
                other.start()
                other.join()
            return False

        keeper.salvage(meanwhile)
        assert other.ident is not None
        world.settle()
        compare(world.folder, world.server, world.produced)
