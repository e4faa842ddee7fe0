"""The queue in front of the server's database, with time in the test's hands."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from teg.simulator.thingsboard.server_queue import SHARES, Kind, PackOrder, ServerQueue


@dataclass
class Settings:
    store_delay_s: float = 1.0
    pack_order: PackOrder = "any"


class Clock:
    """Runs what was scheduled when told to; knows what was waited for."""

    def __init__(self) -> None:
        self.waited_s = 0.0
        self._due: list[tuple[float, Timer]] = []

    def __call__(self, delay_s: float, action: Callable[[], None]) -> "Timer":
        timer = Timer(action)
        self._due.append((delay_s, timer))
        return timer

    def tick(self) -> bool:
        """The next timer goes off; False when there is none."""
        if not self._due:
            return False
        delay_s, timer = self._due.pop(0)
        self.waited_s += delay_s
        timer.action()
        return True

    def run(self) -> None:
        while self.tick():
            pass


class Timer:
    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    def cancel(self) -> None:
        self.action = lambda: None


class World:
    def __init__(self, pack_size: int = 1000, settings: Settings | None = None) -> None:
        self.clock = Clock()
        self.settings = settings or Settings()
        self.stored: list[int | str] = []
        self.queue = ServerQueue(self.clock, self.settings, pack_size)

    def put(self, *names: int | str) -> None:
        for name in names:
            kind: Kind = "client attributes" if isinstance(name, str) else "telemetry"
            self.queue.put(kind, partial(self.stored.append, name))


def test_without_a_delay_everything_is_stored_at_once() -> None:
    world = World(settings=Settings(store_delay_s=0))
    world.put(1, 2)
    assert world.stored == [1, 2]
    assert len(world.queue) == 0


def test_with_a_delay_nothing_is_stored_before_its_time() -> None:
    world = World()
    world.put(1)
    assert (world.stored, len(world.queue)) == ([], 1)
    world.clock.run()
    assert (world.stored, len(world.queue)) == ([1], 0)


def test_a_full_pack_takes_the_delay() -> None:
    world = World(pack_size=100)
    world.put(0)
    world.clock.run()
    before_s = world.clock.waited_s
    world.settings.store_delay_s = 5.0
    world.put(*range(1, 102))  # the first of them is a pack of its own, as it finds the queue empty
    world.clock.tick()
    before_s = world.clock.waited_s
    world.clock.run()
    assert world.clock.waited_s - before_s == pytest.approx(5.0)


def test_the_next_pack_begins_when_the_last_one_is_done() -> None:
    world = World(pack_size=50)
    world.put(*range(151))
    world.clock.run()
    packs = [world.stored[:1]] + [world.stored[start : start + 50] for start in (1, 51, 101)]
    assert [set(pack) for pack in packs] == [{0}, set(range(1, 51)), set(range(51, 101)), set(range(101, 151))]


def test_inside_a_pack_the_order_is_free() -> None:
    world = World(pack_size=50)
    world.put(*range(51))
    world.clock.run()
    assert world.stored[1:] != list(range(1, 51))


def test_attributes_may_overtake_everything_in_their_pack_and_nothing_before_it() -> None:
    world = World(pack_size=10, settings=Settings(pack_order="attributes_first"))
    world.put(*range(11), *range(11, 20), "a")
    world.clock.run()
    assert set(world.stored[:11]) == set(range(11))
    assert world.stored[11] == "a"


def test_what_comes_while_others_wait_is_queued_behind_them_whatever_the_delay() -> None:
    world = World()
    world.put(1, 2)
    world.settings.store_delay_s = 0
    world.put(3)
    assert world.stored == []
    world.clock.run()
    assert world.stored[0] == 1 and set(world.stored) == {1, 2, 3}
    world.put(4)
    assert world.stored[-1] == 4


def test_a_crash_in_the_midst_of_a_pack_forgets_the_rest_for_ever() -> None:
    world = World(pack_size=100)
    world.put(*range(201))
    for _ in range(1 + SHARES // 2):
        world.clock.tick()
    stored = list(world.stored)
    assert len(stored) == 51
    assert world.queue.forget() == 150
    world.clock.run()
    assert (world.stored, len(world.queue)) == (stored, 0)
    missing = set(range(1, 101)) - set(stored)
    assert missing != set(range(51, 101))  # of the pack under way it is any, not the last ones


def test_after_a_crash_the_queue_works_on() -> None:
    world = World()
    world.put(1, 2)
    world.queue.forget()
    world.put(3)
    world.clock.run()
    assert world.stored == [3]


def test_an_orderly_stop_stores_everything_once() -> None:
    world = World(pack_size=10)
    world.put(*range(35))
    world.clock.tick()
    world.queue.drain()
    world.clock.run()
    assert sorted(map(int, world.stored)) == list(range(35))
