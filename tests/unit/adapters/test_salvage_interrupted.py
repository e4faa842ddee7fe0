"""A salvage that was complete, and killed before its folder said so, brings nothing twice."""

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
