"""Links that end every connection early: what goes again does not grow without end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.domain.telemetry.storage_proof import FIRST_S, SHORTEST_S
from tests.unit.telemetry.test_storage_proof import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.acknowledge()
    world.tick(5)
    assert world.unproven == 0
    yield world
    world.archive.database.close()


def connection(world: World, looks: int) -> int:
    """What goes again goes at once, then a record at each look, one in two seconds. Returns how many went again."""
    world.server.epoch += 1
    world.reconnect()
    again = world.archive.pending()
    if again:
        world.archive.deliver(*again)
        world.publisher.acknowledge(60 * len(again))
    for _ in range(looks):
        world.acknowledge(1, 60)
        world.tick()
    return len(again)


def questions(world: World, looks: int) -> int:
    before = world.server.asked
    connection(world, looks)
    return world.server.asked - before


@pytest.mark.parametrize("looks", [2, 3, 7])
def test_short_connections_are_proven_too(world: World, looks: int) -> None:
    """Every one of them ends before a trickle would be proven."""
    assert looks * SHORTEST_S < FIRST_S
    assert max(connection(world, looks) for _ in range(30)) <= 3 * looks


def test_where_connections_last_a_proof_costs_what_it_did(world: World) -> None:
    """No haste after a connection with a proof, and none in a connection that has one already."""
    patient = questions(world, 30)
    assert questions(world, 30) == patient
    connection(world, 3)
    hurried = questions(world, 30)
    assert hurried <= patient + 2
    assert questions(world, 30) == patient
