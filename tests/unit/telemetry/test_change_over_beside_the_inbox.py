"""Rows of the reference's queue and rows of the inbox have the same numbers: neither is taken for the other."""

from pathlib import Path

import pytest

from tests.support import storage_life
from tests.support.legacy import Reference
from tests.support.loss_scenarios import a_world, locked


def test_archived_rows_are_known_again_although_others_of_their_number_were_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while both were archived and still in the inbox: 375 of 25,000 were archived twice."""
    with a_world(tmp_path, monkeypatch) as world:
        (world.folder / "old").mkdir()
        reference = Reference(world.folder / "old", world.folder / "controller" / "communication_queue.db")
        for number in range(101, 121):
            reference.queued(number)
        reference.close()
        world.produced += range(101, 121)
        storage_life.produce(world.folder, range(1, 21))
        world.produced += range(1, 21)
        with monkeypatch.context() as patch:
            patch.setattr(world.life.inbox, "delete", locked)
            world.life.patiently(world.life.ingest)
        world.life.patiently(world.life.take_over)
        world.kill()
        world.settle()
        world.compare()
